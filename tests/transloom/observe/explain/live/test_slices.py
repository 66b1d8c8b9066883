"""Sliced computations, run in Node: they pause, end for newer ones, and report errors."""

import pytest
from support.node_program import answer_of_node, named_modules

# `counting` yields `count` times and is busy for some milliseconds before each yield.
PROGRAM = """
const fs = require("node:fs");
const told = (answer) => fs.writeFileSync(process.argv[3], JSON.stringify(answer));
const asked = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
function* counting(count, milliseconds, seen = []) {
  for (let n = 0; n < count; n++) {
    for (const end = performance.now() + milliseconds; performance.now() < end;);
    seen.push(n);
    yield;
  }
  return seen.length;
}
const tests = {
  async pauses() {
    const inTurn = slicesInTurn([]);
    let timers = 0;
    const timer = setInterval(() => { timers += 1; }, 1);
    const result = await inTurn.run(counting(30, 5));
    clearInterval(timer);
    return { result, timers };
  },
  async ends() {
    const inTurn = slicesInTurn([]);
    const seen = [];
    const older = inTurn.run(counting(1000, 5, seen));
    const newer = inTurn.run(counting(3, 0));
    const results = [await older, await newer];
    return { results: results.map((result) => result ?? null), seen: seen.length };
  },
  async outdated() {
    const inTurn = slicesInTurn([]);
    const seen = [];
    const run = inTurn.run(counting(1000, 5, seen));
    setTimeout(inTurn.outdate);
    return { result: (await run) ?? null, seen: seen.length };
  },
  async refuses() {
    const told = [];
    const inTurn = slicesInTurn([], (message) => told.push(message));
    const none = await inTurn.run((function* () { throw new RangeError("too long"); })());
    const thrown = await inTurn.run((function* () { throw new TypeError("a bug"); })())
      .catch((error) => error.message);
    return { told, none: none ?? null, thrown };
  },
};
tests[asked]().then(told);
"""


@pytest.fixture
def answer(tmp_path):
    return lambda asked: answer_of_node(
        named_modules("explain/live/page/slices.js") + PROGRAM, asked, tmp_path
    )


def test_timers_run_between_slices(answer):
    found = answer("pauses")
    assert found["result"] == 30
    assert found["timers"] >= 3


def test_a_newer_computation_ends_the_older_one(answer):
    found = answer("ends")
    assert found["results"] == [None, 3]
    assert found["seen"] < 1000


def test_a_computation_ends_when_its_input_changes(answer):
    found = answer("outdated")
    assert found["result"] is None
    assert found["seen"] < 1000


def test_refused_input_is_reported_but_other_errors_are_thrown(answer):
    found = answer("refuses")
    assert found == {"told": ["too long"], "none": None, "thrown": "a bug"}
