// Sentences that a reader types, translated by both models in the page: the recorded comparison of the
// page's own sentence is the reference. Argument 1 is the file of a page with two models.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { fill, modulesOfPage, open, tell, textOf, until } from "../../../support/page_in_node.mjs";

const recorded = JSON.parse(/id="comparison">(.*?)<\/script>/s.exec(readFileSync(process.argv[2], "utf-8"))[1]);
const OTHER = "je suis";
const document = open(process.argv[2]);
const { comparisonSlices } = modulesOfPage()["explain/compare/page/comparing.js"];
const { modelInPage } = modulesOfPage()["explain/live/page/loading.js"];
const section = document.getElementById("compare");
const part = (name) => section.querySelector(`[data-compare="${name}"]`);
const typed = document.getElementById("first-sentence");
const shown = () => textOf(part("steps"));
const said = () => part("state").textContent;
await until(() => /Type another sentence/.test(said()));
const own = { steps: shown(), lens: textOf(part("lens")), parting: textOf(part("parting-table")) };
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function result(slices) {
  for (;;) {
    const { done, value } = slices.next();
    if (done) return value;
  }
}

// Equal texts and numbers, up to the rounding of what is recorded.
function isEqual(found, expected, place = "") {
  if (typeof expected === "number") {
    assert.ok(Math.abs(found - expected) <= 1e-3 * Math.abs(expected) + 1e-7, `${place}: ${found} is not ${expected}`);
  } else if (expected && typeof expected === "object") {
    assert.equal(found.length, expected.length, place);
    for (const [name, value] of Object.entries(expected)) isEqual(found[name], value, `${place}.${name}`);
  } else assert.equal(found, expected, place);
}

const models = await Promise.all([modelInPage("live-model"), modelInPage("compared-model")]);
const names = recorded.sides.map(({ name }) => name);

test("the page computes the same comparison as the command", () => {
  isEqual(result(comparisonSlices(models, names, recorded.sentence, recorded.tag)), recorded);
  assert.notEqual(recorded.parting, null);
});

test("a model does not diverge from itself", () => {
  const found = result(comparisonSlices([models[0], models[0]], names, OTHER, null));
  assert.deepEqual([found.same_source, found.same_target, found.parting], [true, true, null]);
  assert.deepEqual(found.sides[0].steps, found.sides[1].steps);
  assert.deepEqual(found.sides[0].asked, found.sides[0].written);
});

test("models that diverge later are compared at that step", () => {
  const { target } = models[1];
  const pieces = target.pieces.toSpliced(-1, 1, "else");
  const renamed = new Proxy(target, { get: (_, name) => (name === "pieces" ? pieces
    : typeof target[name] === "function" ? target[name].bind(target) : target[name]) });
  const other = { ...models[1], target: renamed };
  const found = result(comparisonSlices([models[0], other], names, OTHER, null));
  assert.deepEqual([found.same_target, found.parting], [false, null]);
  assert.deepEqual(found.sides.map(({ asked, written }) => asked.join() === written.join()), [true, true]);
  const sides = result(comparisonSlices(models, names, "elle est là", null));
  const [one, two] = sides.sides.map(({ written }) => written);
  const step = one.findIndex((piece, n) => piece !== two[n]);
  assert.equal(sides.parting.step, step);
  isEqual(sides.parting.probabilities[0][0], sides.sides[0].steps[step].asked);
});

test("what is typed while another section is shown waits until this one is", async () => {
  const before = shown();
  fill(typed, OTHER);
  await pause(250);
  await until(() => /Computed in/.test(document.querySelector("[data-first=state]").textContent));
  assert.equal(shown(), before);
  location.hash = "#compare";
  await until(() => /^Computed here by both models in \d+ ms/.test(said()));
  assert.equal(part("read").textContent, OTHER);
  assert.notEqual(shown(), before);
});

test("what is typed here is compared after a pause, and the own sentence gives the recorded numbers", async () => {
  typed.value = recorded.sentence;
  tell(typed, "input");
  assert.ok(part("steps").className.includes("stale"));
  await until(() => part("read").textContent === recorded.sentence);
  assert.deepEqual({ steps: shown(), lens: textOf(part("lens")), parting: textOf(part("parting-table")) }, own);
  assert.ok(!part("steps").className.includes("stale"));
});

test("a section that is shown again with the same sentence computes nothing", async () => {
  location.hash = "#section-2";
  await pause(50);
  part("state").textContent = "nothing";
  location.hash = "#compare";
  await pause(100);
  assert.equal(said(), "nothing");
  typed.value = "";
  location.hash = "#section-2";
  await pause(50);
  location.hash = "#compare";
  await pause(100);
  assert.equal(said(), "nothing");
});

test("a sentence that is too long is refused, and the dimmed results say whose they are", async () => {
  fill(typed, "je ".repeat(200));
  await until(() => said().includes(recorded.sentence));
  assert.ok(part("maps").className.includes("stale"));
});
