// Functions of the dashboard's page that turn data into texts, orders, positions, and tables.

import assert from "node:assert/strict";
import { test } from "node:test";

import { textOf } from "../../../support/page_in_node.mjs";
import { all, moduleOf, one, openReport, rowsOf, runs, texts } from "./dashboard_page.mjs";

openReport();
const words = moduleOf("words.js");
const series = moduleOf("series.js");
const filters = moduleOf("filters.js");
const { lineOf, Colours } = moduleOf("colours.js");
const { newView, parseView, writeView, toggled } = moduleOf("view_state.js");
const { lookParts, lossesText } = moduleOf("look.js");
const { barOf, factsList, setText, table } = moduleOf("dom.js");
const facts = moduleOf("facts.js");


const each = (format, cases) => cases.forEach(([given, expected]) => assert.equal(format(given), expected,
  String(given)));

test("a number has four digits or its thousands, and a power only if it is far from 1", () => {
  each(words.number, [
    [null, "–"], [undefined, "–"], [NaN, "–"], [Infinity, "∞"], [-Infinity, "−∞"], [0, "0"], [-5.5, "−5.5"],
    [1e-4, "0.0001"], [9.9e-5, "9.9e−5"], [-2e-7, "−2e−7"], [1e9, "1e9"], [999_999_999, "999,999,999"], [1.5e10,
      "1.5e10"],
    [1234.6, "1,235"], [123.46, "123.5"], [100.04, "100"], [12.346, "12.35"], [10.006, "10.01"], [1.23456, "1.235"],
    [0.123456, "0.1235"], [0.00123456, "0.001235"], [1e7, "10,000,000"], [1.0004, "1"], [999.96, "1,000"],
  ]);
});

test("a number of an axis is short", () => {
  each(words.short, [[9999, "9,999"], [10_000, "10k"], [123_456, "123.5k"], [1e6, "1M"], [12_345_678, "12.35M"],
    [1e9, "1e9"], [-20_000, "−20k"], [0.5, "0.5"], [999_000, "999k"], [2_000_000, "2M"]]);
});

test("a whole number has commas, and steps have their goal", () => {
  each(words.whole, [[1234.6, "1,235"], [-3, "−3"], [null, "–"], [undefined, "–"], [0, "0"]]);
  assert.equal(words.stepsOf(5, null), "5");
  assert.equal(words.stepsOf(420, 600), "420 of 600");
  assert.equal(words.stepsOf(600, 600), "600 of 600");
  assert.match(words.stepsOf(700, 600), /^700 \(max_steps.* 600\)$/);
});

test("a duration has at most two units", () => {
  const [min, h, d] = [60, 3600, 86400];
  each(words.span, [[null, ""], [undefined, ""], [0, "0 s"], [-5, "0 s"], [0.4, "0 s"], [7, "7 s"], [59.6, "1 min"],
    [61, "1 min 1 s"], [h, "1 h"], [h + min + 1, "1 h 1 min"], [h + 1, "1 h"], [61 * min, "1 h 1 min"], [25 * h,
      "1 d 1 h"],
    [2 * d + 3 * h + 4 * min, "2 d 3 h"], [d + 59, "1 d"], [d + 4 * min, "1 d"], [30 * d,
      "30 d"], [12 * h + 34 * min, "12 h 34 min"],
    [min + 59, "1 min 59 s"], [23 * h + 59 * min, "23 h 59 min"]]);
});

test("a time is that of this machine's clock", () => {
  const date = new Date(2026, 0, 2, 3, 4, 5);
  assert.equal(words.moment(date.getTime() / 1000), "2026-01-02 03:04:05");
  assert.equal(words.moment(date.toISOString()), "2026-01-02 03:04:05");
  assert.equal(words.moment(new Date(2026, 11, 31, 23, 59, 58).toISOString()), "2026-12-31 23:59:58");
  each(words.moment, [[null, ""], [undefined, ""], ["some day", "some day"]]);
});

test("bytes have a unit of a thousand", () => {
  each(words.bytes, [[null, "–"], [undefined, "–"], [0, "0 B"], [1, "1 B"], [999, "999 B"], [1000, "1.0 KB"],
    [1500, "1.5 KB"],
    [99_900, "99.9 KB"], [100_000, "100 KB"], [10_800_000, "10.8 MB"], [2e9, "2.0 GB"], [3e12, "3.0 TB"], [5e15,
      "5000 TB"]]);
});

test("a score has its name, its search, and the digits of a paper", () => {
  assert.equal(words.scoreTitle("bleu", { decoding: "greedy" }), "BLEU (greedy)");
  assert.equal(words.scoreTitle("chrf", {}), "chrF");
  assert.equal(words.scoreTitle("word_order"), "word order");
  assert.equal(words.scoreValue("loss", 1.23456), "1.2346");
  assert.equal(words.scoreValue("bleu", 12.346), "12.35");
  assert.equal(words.scoreValue("bleu", null) + words.scoreValue("bleu", undefined), "––");
  assert.equal(words.searchLabel({ beam_size: 1, length_penalty: 1 }), "greedy");
  assert.match(words.searchLabel({ beam_size: 5, length_penalty: 0.6 }), /5.*0\.6/);
  each(words.settingText, [[null, "–"], [undefined, "–"], ["text", "text"], [0, "0"], [false, "false"],
    [[1, "a"], '[1,"a"]']]);
});

// Positions.

const columns = { step: [1, 2, 4, 8], time: [50, 60, 80, 120], target_tokens_seen: [10, 20, 40, 80],
  wall_seconds: [null, 7200, 14400, 28800], counted_seconds: [360, 720, null, 2880] };

test("hours of steps are unknown where the record lacks them", () => {
  assert.deepEqual(series.xs(columns, "hours"), [null, 2, 4, 8]);
  assert.deepEqual(series.xs(columns, "effective"), [0.1, 0.2, null, 0.8]);
  const old = { step: [1, 2, 3], time: [null, 3600, 9000] };
  assert.deepEqual(series.xs(old, "hours"), [null, 0, 1.5]);
  assert.deepEqual(series.xs({ step: [1] }, "hours"), []);
});

test("a place between two steps is interpolated", () => {
  const at = (axis, step) => series.xAtStep(columns, axis, step);
  assert.deepEqual([0, 1, 3, 5, 8, 9].map((step) => at("tokens", step)), [10, 10, 30, 50, 80, 80]);
  assert.equal(at("hours", 3), 3);
  assert.equal(at("hours", 1.5), 2); // the place before is unknown
  assert.equal(at("effective", 3), null);
  assert.equal(at("step", 77), 77);
  assert.equal(series.stepAtX(columns, "step", 3.6), 4);
  assert.deepEqual([0, 33, 61, 99].map((x) => series.stepAtX(columns, "tokens", x)), [1, 3, 6, 8]);
  assert.equal(series.stepAtX({ step: [], target_tokens_seen: [] }, "tokens", 1), null);
});

test("the nearest of growing values is found", () => {
  const found = [[-1, 0], [1, 0], [2.4, 0], [2.5, 0], [2.6, 1], [4, 1], [7, 1], [7.1, 2], [10, 2], [99, 2]];
  each((x) => series.nearest([1, 4, 10], x), found);
  each((least) => series.firstFrom([1, 4, 10], least), [[0, 0], [1, 0], [1.1, 1], [4, 1], [5, 2], [10, 2], [11, 3]]);
  for (let size = 1; size < 9; size++) {
    const values = Array.from({ length: size }, (_, n) => 2 * n);
    for (let x = -1; x <= 2 * size; x++) assert.equal(series.firstFrom(values, x),
      values.filter((value) => value < x).length);
  }
});

test("an average of earlier values forgets at its weight", () => {
  const values = [4, 1, null, 7, undefined, 2];
  const reference = (weight) => values.map((value, n) => {
    if (typeof value !== "number") return null;
    const known = values.slice(0, n + 1).filter((each) => typeof each === "number").toReversed();
    const weights = known.map((_, age) => weight ** age);
    return known.reduce((sum, each, age) => sum + weights[age] * each, 0) / weights.reduce((sum, each) => sum + each,
      0);
  });
  for (const weight of [0.2, 0.9]) {
    series.smoothed(values, weight).forEach((value, n) => {
      const expected = reference(weight)[n];
      assert.ok(expected === null ? value === null : Math.abs(value - expected) < 1e-12);
    });
  }
});

test("a logarithmic axis shows only what is above 0", () => {
  assert.deepEqual(series.positive([1, 0, -1, 1e-9, null]), [1, null, null, 1e-9, null]);
});

test("newer steps are appended, and known ones are left as they are", () => {
  const known = { step: [1, 2], loss: [5, 4], loss_max: [6, 5], nll: [1, 1] };
  assert.equal(series.append(known, { step: [2, 3, 5], loss: [9, 3, 2] }), 2);
  assert.deepEqual(known, { step: [1, 2, 3, 5], loss: [5, 4, 3, 2], loss_max: [6, 5, 3, 2], nll: [1, 1, null, null] });
  const empty = { step: [], loss: [] };
  assert.equal(series.append(empty, { step: [1, 2], loss: [3, 2] }), 2);
  assert.deepEqual(empty.step, [1, 2]);
  const none = { step: [3] };
  assert.equal(series.append(none, { step: [4], loss: [1] }), 1);
});

test("a score has points where a validation computed it", () => {
  const at = (step, value) => ({ step, scores: value === "none" ? {} : { bleu: { value } } });
  assert.deepEqual(series.scorePoints([at(1, 3), at(2, null), at(3, "none"), at(4, 0), at(5, undefined)], "bleu"),
    [{ step: 1, value: 3 }, { step: 4, value: 0 }]);
});

test("a readable table has evenly spaced rows, with the first and the last", () => {
  const rows = (count) => Array.from({ length: count }, (_, n) => n);
  assert.deepEqual(series.readable(rows(5), 5), rows(5));
  assert.deepEqual(series.readable(rows(3), 5), rows(3));
  assert.deepEqual(series.readable(rows(9), 5), [0, 2, 4, 6, 8]);
  assert.deepEqual(series.readable(rows(6), 5), [0, 1, 3, 4, 5]);
});

test("a range has the lowest and the highest known number", () => {
  assert.deepEqual(series.extent([3, null, -2, undefined, NaN, 7]), [-2, 7]);
  assert.deepEqual(series.extent([4]), [4, 4]);
  assert.equal(series.extent([null, NaN]), null);
  assert.deepEqual(series.widened([4, 4]), [3.5, 4.5]);
  assert.deepEqual(series.widened([4, 5]), [4, 5]);
});

test("a point without a neighbour is lonely", () => {
  assert.deepEqual(series.lonely([1, null, 2]), [0, 2]);
  assert.deepEqual(series.lonely([1, 2, null]), []);
  assert.deepEqual(series.lonely([null, 1]), [1]);
  assert.deepEqual(series.lonely([0, undefined, null, undefined, 0]), [0, 4]);
});

// Filters and orders.

const standing = { name: "Big Run", state: "training", step: 10, ranks: 4, seconds_left: null, job_owner: null,
  owner: { host: "node-9" },
  numbers: { mfu: 0.5, target_tokens_per_second: 900 }, scores: { bleu: { value: 30 } }, best: { bleu: { value: 31 } },
  settings: { "model.width": 256, "data.tag": "News", "trainer.keep": null, "model.bias": false } };
const row = { id: "a", standing };
const keeps = (text, its = row) => filters.fits(its, filters.parseFilter(text));

test("a filter compares fields with numbers", () => {
  const cases = { "step<11": true, "step<10": false, "step>9": true, "step>10": false, "step<=10": true,
    "step<=9": false,
    "step>=10": true, "step>=11": false, "step=10": true, "step=11": false, "step!=10": false, "step!=11": true,
    "step=10.0": true,
    "bleu>29.5": true, "best.bleu=31": true, "mfu=0.5": true, "width=256": true, "model.width>=256": true,
    "tokens/s=900": true,
    "step=": false, "step!=": true, "step>": false, "step>=": false,
    "step<=": false, "step<": false, "step<x": false, "step>x": false };
  for (const [text, isKept] of Object.entries(cases)) assert.equal(keeps(text), isKept, text);
});

test("a filter compares fields with texts", () => {
  const cases = { "state=training": true, "state=train": false, "state:train": true, "state:x": false,
    "state!=finished": true,
    "state!=training": false, "tag=news": true, "tag:EW": true, "name:big": true, "owner=node-9": true,
    "step:1": true, "step:2": false,
    "bias=false": true, "state>a": false, "state<z": false, "state>=a": false, "state<=z": false, "tag>=0": false };
  for (const [text, isKept] of Object.entries(cases)) assert.equal(keeps(text), isKept, text);
});

test("what is unknown fulfils only an inequality", () => {
  for (const field of ["keep", "nothing", "seconds_left", "left"]) {
    for (const sign of [":", "=", "<", ">", "<=", ">="]) assert.equal(keeps(`${field}${sign}0`), false, field + sign);
    assert.equal(keeps(`${field}!=0`), true, field);
  }
});

test("a word is searched in names, states and settings, and all terms must hold", () => {
  for (const text of ["big", "BIG", '"big run"', "train", "news", "256", "big news step>9"]) assert.ok(keeps(text),
    text);
  for (const text of ["small", '"big  run"', "big small", "news step>10", '"step>9"']) assert.ok(!keeps(text), text);
  assert.ok(keeps(""));
});

test("an owner is that of the job, or else the host of the process", () => {
  const of = (changes) => filters.valueOf({ standing: { ...standing, ...changes } }, "owner");
  assert.equal(of({}), "node-9");
  assert.equal(of({ job_owner: "ana" }), "ana");
  assert.equal(of({ owner: null }), null);
});

test("a misspelled field is reported, and a word is none", () => {
  const terms = filters.parseFilter("word widht=3 step>1 width=2 nothing:x");
  assert.deepEqual(filters.unknownFields([row], terms), ["widht", "nothing"]);
});

test("runs are ordered by a field, and unknown values come last", () => {
  const of = (id, step, tag) => ({ id, standing: { ...standing, step, settings: { "data.tag": tag } } });
  const rows = [of("a", 10, "run-10"), of("b", null, null), of("c", 9, "run-9"), of("d", 100, "run-1"),
    of("e", undefined, undefined)];
  const order = (by) => filters.sorted(rows, by).map(({ id }) => id).join("");
  assert.deepEqual(["", "step", "-step", "tag", "-tag"].map(order), ["abcde", "cadbe", "dacbe", "dcabe", "acdbe"]);
  const mixed = [of("a", 1, 5), of("b", 1, "x"), of("c", 1, 40)];
  assert.equal(filters.sorted(mixed, "tag").map(({ id }) => id).join(""), "acb");
});

test("only settings in which runs differ are differences", () => {
  const of = (settings) => ({ standing: { settings } });
  assert.deepEqual(filters.differences([of({ b: 1, a: [1], c: 2 }), of({ b: 2, a: [1] })]),
    [{ key: "b", values: [1, 2] }, { key: "c", values: [2, null] }]);
});

test("the runs for a start are those that train, then the longest", () => {
  const of = (id, step, state = "finished") => ({ id, standing: { step, state, settings: {} } });
  const rows = [of("a", 5), of("b", 9), of("c", 1, "training"), of("d", 7), of("e", 2, "training")];
  assert.deepEqual(filters.firstChoice(rows, [], 4), ["e", "c", "b", "d"]);
  assert.deepEqual(filters.firstChoice(rows, ["a"], 2), ["a", "e"]);
});

// Colours.

function hashOf(text) { // FNV-1a with the finalizer of MurmurHash3, in integers of any size
  const mask = 0xffffffffn;
  let hash = 0x811c9dc5n;
  const units = text.split("").map((its) => BigInt(its.charCodeAt(0)));
  for (const unit of units) hash = ((hash ^ unit) * 0x01000193n) & mask;
  hash = ((hash ^ (hash >> 16n)) * 0x85ebca6bn) & mask;
  hash = ((hash ^ (hash >> 13n)) * 0xc2b2ae35n) & mask;
  return Number(hash ^ (hash >> 16n));
}

test("a run has the colour of its hash, or the next in its turn that is free", () => {
  const ids = Array.from({ length: 40 }, (_, n) => `run ${n} é`);
  const colours = new Colours();
  colours.assign(ids);
  const taken = new Set();
  for (const hash of ids.map(hashOf).sort((a, b) => a - b)) {
    const step = [1, 3, 5, 7][Math.floor(hash / 256) % 4];
    const turns = Array.from({ length: 64 }, (_, turn) => 8 * Math.floor(turn / 8) + ((hash + turn * step) % 8));
    const place = turns.find((its) => !taken.has(its));
    taken.add(place);
    assert.equal(colours.place(ids.find((id) => hashOf(id) === hash)), place);
  }
  colours.assign([ids[0]]);
  assert.equal(colours.place(ids[1]), undefined);
});

test("lines of the same colour differ in their dashes", () => {
  assert.deepEqual([0, 7, 8, 16, 24, 32].map((place) => lineOf(place)), [
    { colour: "--run-0", dash: [] }, { colour: "--run-7", dash: [] }, { colour: "--run-0", dash: [8, 4] },
    { colour: "--run-0", dash: [2, 3] }, { colour: "--run-0", dash: [10, 3, 2, 3] }, { colour: "--run-0", dash: [] }]);
});

// The address.

test("an address keeps all of a view, and nothing that is not chosen", () => {
  assert.equal(writeView(newView()), "");
  assert.deepEqual(parseView(""), newView());
  assert.deepEqual(newView(), { run: null, runs: null, filter: "", sort: "", columns: [], x: "step", smooth: 0, log: [],
    charts: null, zoom: null, step: null });
  const view = { run: "a b", runs: ["a,b", "c%d", "é"], filter: "a>1 & b", sort: "-bleu", columns: ["data.tag"],
    x: "hours",
    smooth: 0.25, log: ["loss", "score.bleu"], charts: ["loss"], zoom: [1.5, 200], step: { id: "a@b", step: 57 } };
  assert.deepEqual(parseView(writeView(view)), view);
  assert.deepEqual(parseView(writeView({ ...newView(), runs: [] })).runs, []);
  assert.match(writeView({ ...newView(), zoom: [1.23456789, 20] }), /zoom=1\.234568\.\.20$/);
});

test("an address that was edited by hand is read as far as it is valid", () => {
  for (const smooth of ["0", "1", "-0.5", "1.5", "x"]) assert.equal(parseView(`#smooth=${smooth}`).smooth, 0, smooth);
  assert.equal(parseView("#smooth=0.99").smooth, 0.99);
  for (const zoom of ["5..5", "6..5", "1..2..3", "1", "x..2", "1..x",
    ""]) assert.equal(parseView(`#zoom=${zoom}`).zoom, null, zoom);
  assert.deepEqual(parseView("#zoom=-1..2").zoom, [-1, 2]);
  assert.equal(parseView("#x=miles").x, "step");
  for (const step of ["a", "a@", "@5", "a@x", "a@-1"]) assert.equal(parseView(`#step=${step}`).step, null, step);
  assert.deepEqual(parseView("#runs=a,%25E0%25A4,b").runs, ["a", "%E0%A4", "b"]);
});

test("an item of a list is switched", () => {
  assert.deepEqual(toggled(["a", "b"], "a"), ["b"]);
  assert.deepEqual(toggled(["a"], "b"), ["a", "b"]);
  assert.deepEqual(toggled(["a"], "b", false), ["a"]);
});

// Elements.

test("cells of a table are aligned by what they are", () => {
  const made = table("caption", ["a", "b"], [["1,234.5", "12"], ["−1.5e−7", "text"], ["2026-01-02 03:04:05",
    "2026-01-02"], ["1 s", null]],
    { texts: [1] });
  assert.deepEqual(all("td", made).map((cell) => cell.className),
    ["number", "text", "number", "text", "number", "text", "", "text"]);
  assert.deepEqual(rowsOf(made)[3], ["1 s", ""]);
  assert.equal(made.getAttribute("aria-label"), "caption");
  assert.deepEqual([made.className, one("caption", made).className], ["scrolls", ""]);
  const quiet = table("caption", ["a"], [["1"], ["x"]], { quiet: true, tall: true });
  assert.deepEqual([quiet.className, one("caption", quiet).className], ["scrolls tall", "unseen"]);
  assert.deepEqual(all("td", table("c", ["a"], [[document.createElement("b")]])).map((cell) => cell.className), [""]);
});

test("a bar is filled by its share", () => {
  const filled = (share) => one("i", barOf(share)).style.width;
  assert.deepEqual([0, 0.25, 1, 1.5, -1].map(filled), ["0%", "25%", "100%", "100%", "0%"]);
});

test("facts without a value are left out", () => {
  const list = factsList([["a", "1"], ["b", ""], ["c", null], ["d", 0]]);
  assert.deepEqual(texts("dt", list), ["a"]);
});

test("a text that is the same is not announced again", () => {
  const node = document.createElement("p");
  setText(node, "a");
  const [text] = node.childNodes;
  setText(node, "a");
  assert.ok(node.childNodes[0] === text);
  setText(node, "b\u200b");
  assert.equal(node.textContent, "b\\u200b");
});

test("a fact has its format, and the unit of the run's loss", () => {
  const { Facts, currentText, kindOf, stepText, titleOf } = facts;
  const text = (format, value, unit = "s") => stepText({ format, unit }, value, {});
  assert.deepEqual([text("loss", 1.23456), text("percent", 0.12345), text("rate", 1234.5), text("seconds", 1.23456),
    text("span", 61),
    text("power", 0.003, "")], ["1.235 s", "12.3%", "1,235 s", "1.235 s", "1 min 1 s", "0.003"]);
  assert.equal(stepText({ format: "rate", unit: "{unit}s/s" }, 5, { loss_unit: "label" }), "5 labels/s");
  assert.equal(text("loss", null), "–");
  assert.equal(titleOf({ name: "loss", title: "loss" }, { smooths_labels: true }), "loss (smoothed)");
  assert.equal(titleOf({ name: "loss", title: "loss" }, { smooths_labels: false }), "loss");
  assert.equal(titleOf({ name: "nll", title: "nll" }, { smooths_labels: true }), "nll");
  assert.equal(titleOf({ name: "loss", title: "loss" }), "loss");
  assert.match(currentText({ name: "a", current: "share" }, { numbers: { a: 0.5 } }), /^50\.0% of /);
  assert.equal(currentText({ name: "a", current: "last", format: "whole", unit: "" }, { numbers: { a: 0.5 }, a: 7 }),
    "1");
  assert.equal(currentText({ name: "a", format: "whole", unit: "" }, { a: 7 }), "7");
  assert.equal(currentText({ name: "a" }, { a: "some_state" }), "some state");
  assert.equal(currentText({ name: "a" }, { a: null }), null);
  const known = new Facts({ facts: [{ name: "a", show: ["x"] }, { name: "b", show: ["y", "z"] }],
    events: [{ name: "e", title: "E", mark: "m" }] });
  assert.deepEqual(known.at("z", "x").map(({ name }) => name), ["a", "b"]);
  assert.equal(known.named("b").name, "b");
  assert.equal(known.kindOf({ event: "e" }).title, "E");
  assert.equal(known.kindOf({ event: "of_later" }).title, "of later");
});

// The report of an inspection.

const example = (loss, share, texts, more = {}) => ({ loss, share, texts, tokens: 7, slot: 3, rank: 1,
  corpus: "news", shard: "shard-2",
  example: 41, start: 0, ...more });
const lookedStep = (step, examples) => ({ step, loss: 4.5, recorded_loss: 4.25, grad_norm: 1.5,
  recorded_grad_norm: 2.5, examples,
  gradient_norms: { "layer.0": 2, "layer.1": 0.5, "layer.2": null },
  activations: { "layer.0": { minimum: -1.5, mean: 0.25, maximum: 3.5, largest_magnitude: 3.75 } } });
const verdict = { same: true, to_the_last_bit: true, data: "same", losses: "same", state: "not_compared",
  promise: "the same losses",
  first_difference: null, ranks_for_bits: null };
const look = { run: "runs/a", from_step: 7, to_step: 7, steps_trained: 2, replayed_from: 5, verdict,
  steps: [lookedStep(7, [example(9, 0.75, { source: "s1", target: "t1" }),
    example(1, 0.25, { source: "s2" }, { start: 12 })])] };

test("an inspection shows the sentences of its step", () => {
  const [, part, ...rest] = lookParts(look, "Loss");
  assert.equal(rest.length, 0);
  const [sentences, norms, ranges] = all("table", part);
  assert.deepEqual(texts("thead th", sentences).slice(2, 5), ["source", "target", "tokens"]);
  assert.deepEqual(rowsOf(sentences), [
    ["9", "75.0 %", "s1", "t1", "7", "3", "1", "news", "shard-2 · 41"],
    ["1", "25.0 %", "s2", "", "7", "3", "1", "news", "shard-2 · 41 from token 12"]]);
  assert.deepEqual(all("td", sentences).slice(0, 9).map((cell) => cell.className),
    ["number", "", "text", "text", "number", "number", "number", "", ""]);
  assert.deepEqual(all(".share i", sentences).map((bar) => bar.style.width), ["75%", "25%"]);
  assert.deepEqual(rowsOf(norms).map((cells) => cells.slice(0, 2)), [["layer.0", "2"], ["layer.1", "0.5"],
    ["layer.2", "–"]]);
  assert.deepEqual(all("i", norms).map((bar) => bar.style.width), ["100%", "25%", "0%"]);
  assert.deepEqual(rowsOf(ranges), [["layer.0", "−1.5", "0.25", "3.5", "3.75"]]);
  // headings say the same
  assert.ok([sentences, norms, ranges].every((its) => one("caption", its).className === "unseen"));
  assert.match(sentences.parentElement.className, /tall/);
  assert.match(textOf(part), /Loss 4\.5, recorded 4\.25; gradient norm 1\.5, recorded 2\.5\./);
  assert.equal(one("h3", part) && texts("h3, h4", part).some((title) => /^Step/.test(title)), false);
  assert.match(textOf(one("h3", part)), /^2 sentences/);
});

test("each step of an inspection of several has a heading", () => {
  const [, first, second] = lookParts({ ...look, steps: [look.steps[0], lookedStep(1008, [])] }, "Loss");
  assert.equal(texts("h3", first).join(), "Step 7");
  assert.equal(texts("h3", second).join(), "Step 1,008");
  assert.match(texts("h4", first)[0], /^2 sentences/);
  assert.deepEqual(all("i", lookParts({ ...look, steps: [{ ...lookedStep(1, []), gradient_norms: { a: 0 } }] },
    "Loss")[1])
    .map((bar) => bar.style.width), ["0%"]);
  const unknown = lookParts({ ...look, steps: [lookedStep(1, [example(1, null, {}), example(1, undefined, {}),
    example(1, 0, {})])] }, "Loss")[1];
  assert.deepEqual(rowsOf(one("table", unknown)).map((cells) => cells[1]), ["–", "–", "0.0 %"]);
});

test("a verdict says what was compared, and the first difference", () => {
  const said = (changes, more = {}) => lookParts({ ...look, ...more, verdict: { ...verdict, ...changes } }, "Loss")[0];
  assert.equal(said({}).className, "verdict same");
  assert.match(textOf(said({})), /2 steps trained .* step 5\. Data the same.*losses the same.*state not compared/);
  assert.match(textOf(said({}, { replayed_from: null, steps_trained: 1 })), /1 step trained .*first weights/);
  assert.equal(all("p", said({})).length, 1);
  assert.doesNotMatch(textOf(said({})), /rounding/);
  assert.match(textOf(said({ to_the_last_bit: false })), /up to rounding.*losses the same up to rounding/);
  const different = said({ same: false, data: "different", state: "odd", losses: "of a later version",
    first_difference: { step: 7, what: "the loss", recorded: 0, replayed: 2, details: ["here", "there"] } });
  assert.equal(different.className, "verdict different");
  assert.match(textOf(different), /differs.*Data DIFFERENT.*losses of a later version, state odd/);
  assert.match(textOf(different), /step 7, the loss: 0 recorded, 2 now\. here; there/);
  const bare = textOf(said({ same: false, first_difference: { step: 7, what: "the loss", recorded: null } }));
  assert.match(bare, /step 7, the loss\. $/);
  const ranks = said({ ranks_for_bits: 4 });
  assert.equal(textOf(one("code", ranks)), "transloom replay runs/a --steps 7:7 --ranks 4");
  assert.equal(lossesText({ losses: "unreadable", to_the_last_bit: true }),
    lossesText({ losses: "unreadable", to_the_last_bit: false }));
  assert.equal(lossesText({ losses: "same", to_the_last_bit: true, amplified_rounding: true,
    largest_difference: 1 }), "the same as recorded");
});

test("the runs of the report are plain data", () => assert.equal(runs.length, 3));
