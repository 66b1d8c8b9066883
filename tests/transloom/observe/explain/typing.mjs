// The box in which a sentence is typed. Argument 1 is the file of a page with its model.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, modulesOfPage, open, textOf, until } from "../../../support/page_in_node.mjs";

const document = open(process.argv[2]);
const part = (name) => document.querySelector(`.first-screen [data-first="${name}"]`);
const { showFailure, showOthers, typingBox } = modulesOfPage()["explain/walk/first_screen.js"];
const heading = document.querySelector(".first-screen h1");
const own = JSON.parse(document.getElementById("live-model").textContent).sentence;
const computed = () => /Computed in (\d+) ms/.exec(part("state").textContent);
const drawn = () => [...document.querySelectorAll("main > section.drawn")];
await until(computed);

test("the page begins with its own sentence, and the keys at the first screen", () => {
  assert.equal(part("sentence").value, own);
  assert.deepEqual([part("given").hidden, part("typing").hidden], [true, false]);
  assert.ok(heading.tabIndex === -1 || heading.getAttribute("tabindex") === "-1");
  assert.ok(document.activeElement === document.body);
  assert.ok(Number(computed()[1]) >= 1);
});

test("a typed sentence replaces all sections, and the translations by others are hidden", async () => {
  const others = () => [...document.querySelectorAll('[data-first="other"]')].map(({ hidden }) => hidden);
  assert.ok(others().length > 0 && others().every((hidden) => !hidden));
  const before = drawn();
  const made = part("made").textContent;
  part("state").textContent = "";
  fill(part("sentence"), "je");
  assert.ok(part("made").className.includes("stale"));
  await until(computed);
  assert.match(textOf(part("flow").querySelector('[data-flow="tokens"]')), /2 pieces/);
  assert.ok(!part("made").className.includes("stale"));
  assert.notEqual(part("made").textContent, made);
  assert.ok(others().every((hidden) => hidden));
  assert.ok(before.every((section) => !section.isConnected));
  const numbers = drawn().map(({ id }) => id);
  assert.deepEqual(numbers, numbers.map((_, n) => `section-${n + 2}`));
  assert.deepEqual([...document.querySelectorAll("main > section")].map(({ id }) => id),
    ["section-1", "live", "compare", ...numbers, "time-lapse"]);
  part("state").textContent = "";
  click(part("examples").firstChild);
  assert.equal(part("sentence").value, own);
  await until(computed);
  assert.equal(part("made").textContent, made);
  assert.ok(others().every((hidden) => !hidden));
  await until(() => /beam search/.test(textOf(document.querySelector('[data-walk="after"]'))));
});

test("the page's own sentence and the three shortest others are examples", () => {
  let changes = 0;
  document.getElementById("menu").focus();
  heading.removeAttribute("tabindex");
  const { box, take } = typingBox([own, "ccccc", "a", own, "a", "dd", "eee", "bbbb"], () => { changes++; });
  assert.ok(document.activeElement === document.getElementById("menu")); // a reader who is elsewhere stays
  assert.equal(heading.hasAttribute("tabindex"), false);
  assert.deepEqual([...part("examples").children].map(({ textContent }) => textContent), [own, "a", "dd", "eee"]);
  click(part("examples").children[2]);
  assert.deepEqual([box.value, changes], ["dd", 1]);
  take("xx");
  assert.deepEqual([box.value, changes], ["xx", 2]);
  typingBox(["another"], () => {});
  assert.equal(box.value, "xx"); // kept by the browser
});

test("a page that opens at a fragment leaves the keys there", async () => {
  document.activeElement.blur();
  heading.removeAttribute("tabindex");
  location.hash = "#section-2";
  typingBox([own], () => {});
  assert.equal(heading.hasAttribute("tabindex"), false);
});

test("only the newest computation says how long it took", async () => {
  const { say, sayComputed } = typingBox([own], () => {});
  say("one ", "two");
  assert.equal(part("state").textContent, "one two");
  const started = performance.now();
  const first = sayComputed(started - 50_000, "first");
  await sayComputed(started - 1000, "second", " And more.");
  await first;
  const [, ms] = /second\. Computed in (\d+) ms\. And more\.$/.exec(part("state").textContent);
  assert.ok(ms >= 1000 && ms < 40_000);
});

test("translations by other models, and a model that cannot run", () => {
  showOthers(true);
  assert.equal(document.querySelector('[data-first="other"]').hidden, false);
  showFailure(new Error("a reason"));
  assert.match(part("given").nextElementSibling.textContent, /a reason/);
  assert.equal(part("given").nextElementSibling.getAttribute("role"), "note");
});
