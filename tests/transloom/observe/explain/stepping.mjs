// The stepper: buttons, lists, fragments, prints and colours. Argument 1 is the file of a page with a model.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, modulesOfPage, open, tell, textOf, until } from "../../../support/page_in_node.mjs";

let systemChanged = null;
const document = open(process.argv[2], {
  matchMedia: (query) => ({
    matches: false,
    addEventListener(type, told) { if (query.includes("color-scheme")) systemChanged = told; },
  }),
});
const { refresh } = modulesOfPage()["explain/page.js"];
const at = (id) => document.getElementById(id);
const root = document.documentElement;
const sections = () => [...document.querySelectorAll("main > section")];
const here = () => sections().filter((section) => section.classList.contains("here")).map(({ id }) => id);
const links = () => [...document.querySelectorAll("nav a")];
const current = () => links().filter((link) => link.hasAttribute("aria-current")).map((link) => link.getAttribute("href"));
const isSame = (node, other) => assert.ok(node === other, `${node?.outerHTML?.slice(0, 200)}`);
const pause = () => new Promise((resolve) => setTimeout(resolve, 20));

async function goTo(fragment) {
  location.hash = fragment;
  await pause();
}

await until(() => sections().length > 5);

function standsAt(number) {
  const { id } = sections()[number - 1];
  assert.deepEqual(here(), [id]);
  assert.deepEqual(current(), [`#${id}`]);
  assert.equal(at("menu").value, `#${id}`);
  assert.equal(at("place").textContent, `${number} of ${sections().length}`);
  assert.deepEqual([at("back").disabled, at("on").disabled], [number === 1, number === sections().length]);
}

test("the page begins with its first section", () => {
  standsAt(1);
  assert.ok(root.classList.contains("stepping"));
  isSame(document.activeElement, document.body);
});

test("the list has the sections in groups, and the parts of those that are there from the beginning", () => {
  const expected = [];
  for (const section of sections()) {
    if (expected.at(-1)?.name !== section.dataset.group) expected.push({ name: section.dataset.group, links: [] });
    const parts = section.classList.contains("drawn") ? [] : [...section.querySelectorAll("h2[id]")];
    expected.at(-1).links.push([section.id, section.dataset.name], ...parts.map((part) => [part.id, part.textContent]));
  }
  const linksIn = (node) => [...node.querySelectorAll("a")].map((link) => [link.getAttribute("href").slice(1), link.textContent]);
  const nav = document.querySelector("nav");
  assert.deepEqual([...nav.querySelectorAll("h2")].map((group) => [group.textContent, linksIn(group.nextElementSibling)]),
    expected.map(({ name, links: inside }) => [name, inside]));
  assert.ok(nav.querySelectorAll("ol ol").length > 0); // the live section has parts
  assert.ok([...nav.querySelectorAll("ol ol")].every((list) => list.children.length > 0));
  const options = [...at("menu").querySelectorAll("optgroup")].map((group) => [group.getAttribute("label"),
    [...group.querySelectorAll("option")].map((one) => [one.value, one.textContent])]);
  const ids = new Set(sections().map(({ id }) => id));
  assert.deepEqual(options, expected.map(({ name, links: inside }) =>
    [name, inside.filter(([id]) => ids.has(id)).map(([id, text]) => [`#${id}`, text])]));
});

test("Next and Back go by one section, the address names it, and it gets the focus", async () => {
  click(at("on"));
  await pause();
  standsAt(2);
  assert.equal(location.hash, `#${sections()[1].id}`);
  isSame(document.activeElement, sections()[1]);
  isSame(document.scrolledTo, sections()[1]);
  click(at("on"));
  await pause();
  standsAt(3);
  click(at("back"));
  await pause();
  standsAt(2);
});

test("the list and the menu lead to a section, and the last one has no next", async () => {
  click(links().at(-1));
  await pause();
  standsAt(sections().length);
  fill(at("menu"), `#${sections()[3].id}`);
  await pause();
  standsAt(4);
});

test("a box of the model's figure leads to the part that shows it", async () => {
  await goTo("#box-decoder.2.feed_forward");
  const step = sections().find(({ dataset }) => dataset.group === "Decoding steps");
  isSame(document.scrolledTo, at(`${step.id}-inside-2`));
  at(`${step.id}-inside-2`).open = false;
  await goTo("#box-encoder.ids");
  isSame(document.scrolledTo, at("section-2"));
  document.scrolledTo = null;
  await goTo("#box-unknown.box");
  isSame(document.scrolledTo, null);
  await goTo(`#${encodeURIComponent("section-2")}`);
  assert.deepEqual(here(), ["section-2"]);
});

test("an address without a fragment is the first section, and its own fragment its top", async () => {
  let scrolled = null;
  globalThis.scrollTo = (...place) => { scrolled = place; };
  await goTo("#section-3");
  assert.equal(scrolled, null);
  await goTo("");
  standsAt(1);
  assert.equal(scrolled, null);
  document.scrolledTo = null;
  await goTo("#section-3");
  document.scrolledTo = null;
  await goTo("#section-1");
  standsAt(1);
  assert.deepEqual(scrolled, [0, 0]);
  isSame(document.scrolledTo, null);
});

test("an unknown fragment leaves the reader where they are, until a section has it", async () => {
  await goTo("#section-3");
  at("menu").focus();
  await goTo("#not-there");
  assert.deepEqual(here(), ["section-3"]);
  isSame(document.activeElement, at("menu"));
  refresh();
  assert.deepEqual(here(), ["section-3"]);
  const added = document.createElement("section");
  Object.entries({ id: "not-there", "data-group": "G", "data-name": "N" }).forEach(([name, value]) =>
    added.setAttribute(name, value));
  document.querySelector("main").append(added);
  refresh();
  assert.deepEqual(here(), ["not-there"]);
  isSame(document.scrolledTo, added);
  isSame(document.activeElement, at("menu")); // the reader did not ask now
  added.remove();
  await goTo("#section-3");
});

test("a section is drawn when it is shown first", async () => {
  const undrawn = sections().filter((section) => section.classList.contains("drawn") && section.draw);
  const section = undrawn.at(-1);
  assert.equal(section.querySelectorAll("p:not(.lead)").length, 0);
  await goTo(`#${section.id}`);
  assert.ok(section.querySelectorAll("p:not(.lead)").length > 0);
  assert.ok(section.draw === null);
});

test("a fragment of a fold opens it, and those around it", async () => {
  await goTo("#section-1");
  const step = sections().find(({ dataset }) => dataset.group === "Decoding steps");
  await goTo(`#${step.id}-inside-1`); // of a section that was not drawn yet
  const fold = at(`${step.id}-inside-1`);
  assert.equal(fold.open, true);
  isSame(document.scrolledTo, fold);
  assert.deepEqual(here(), [step.id]);
  isSame(document.activeElement, step);
  const other = at(`${step.id}-inside-2`);
  assert.equal(other.open, false);
  const [outer, inner] = ["details", "details"].map((tag) => document.createElement(tag));
  inner.id = "nested";
  outer.append(inner);
  step.append(outer);
  await goTo("#nested");
  assert.deepEqual([outer.open, inner.open, other.open], [true, true, false]);
  outer.remove();
});

test("sections that replace others keep the reader's place, and the focus if theirs was replaced", async () => {
  await goTo("#section-2");
  at("menu").focus();
  const before = document.scrolledTo = document.body;
  refresh(new Map([["own.box", "section-3"]]));
  assert.deepEqual(here(), ["section-2"]);
  isSame(document.scrolledTo, before); // nobody is moved
  isSame(document.activeElement, at("menu"));
  const [old, made] = [at("section-2"), at("section-2").cloneNode(true)];
  old.replaceWith(made);
  made.classList.remove("here");
  refresh(new Map([["own.box", "section-3"]]));
  assert.deepEqual(here(), ["section-2"]);
  isSame(document.activeElement, made);
  isSame(document.scrolledTo, made);
  await goTo("#box-own.box");
  assert.deepEqual(here(), ["section-3"]);
});

test("the list scrolls to the section that is shown", async () => {
  const list = document.querySelector("nav");
  list.getBoundingClientRect = () => ({ top: 100, bottom: 400 });
  const link = links().find((one) => one.getAttribute("href") === "#section-2");
  const shownAt = async (top, bottom) => {
    list.scrollTop = 50;
    refresh();
    const found = links().find((one) => one.getAttribute("href") === "#section-2");
    Object.getPrototypeOf(link).getBoundingClientRect = function () {
      return this === found ? { top, bottom } : { left: 0, top: 0, width: 100, height: 20, right: 100, bottom: 20 };
    };
    await goTo("#section-4");
    list.scrollTop = 50;
    await goTo("#section-2");
    return list.scrollTop;
  };
  assert.equal(await shownAt(150, 170), 50);
  assert.equal(await shownAt(80, 100), 30);
  assert.equal(await shownAt(410, 430), 80);
  delete Object.getPrototypeOf(link).getBoundingClientRect;
  delete list.getBoundingClientRect;
});

test("the place is written only when it changes, because screen readers say it", async () => {
  let written = 0;
  const place = at("place");
  let said = place.textContent;
  Object.defineProperty(place, "textContent", {
    get: () => said, set(text) { written++; said = text; }, configurable: true });
  refresh();
  assert.equal(written, 0);
  await goTo("#section-3");
  assert.equal(written, 1);
  delete place.textContent;
  place.textContent = said;
});

test("the skip link leads to the section", async () => {
  await goTo("#section-3");
  at("menu").focus();
  const skip = document.querySelector(".skip");
  assert.equal(tell(skip, "click"), false); // not to the fragment of the link
  isSame(document.activeElement, at("section-3"));
});

test("links of a page outside a frame are followed by the browser", () => {
  assert.equal(tell(links()[0], "click"), true);
});

const layouts = () => [".first-screen figure.map", "section.here figure.map"].map((kind) =>
  document.querySelector(kind).layout);
const changed = (before) => layouts().map((layout, n) => layout !== before[n]);

test("colours and widths that change paint the maps again", async () => {
  const first = document.querySelector(".first-screen");
  await goTo("#section-3");
  await until(() => layouts().every(Boolean));
  let before = layouts();
  const repainted = (act) => {
    before = layouts();
    act();
    return changed(before);
  };
  assert.deepEqual(repainted(() => tell(globalThis, "resize")), [false, false]); // of the height alone
  assert.deepEqual(repainted(() => { globalThis.innerWidth = 400; tell(globalThis, "resize"); }), [true, true]);
  assert.deepEqual(repainted(() => tell(globalThis, "resize")), [false, false]);
  assert.deepEqual(repainted(() => click(at("theme"))), [true, true]);
  assert.equal(root.dataset.theme, "dark");
  click(at("theme"));
  assert.equal(root.dataset.theme, "light");
  click(at("theme"));
  assert.equal(root.dataset.theme, "dark");
  assert.deepEqual(repainted(systemChanged), [true, true]);
  assert.deepEqual(repainted(() => fill(at("scale"), "shared")), [true, true]);
  const texts = () => new Set([...at("section-3").querySelectorAll(".scale")].map(({ textContent }) => textContent));
  assert.equal(root.dataset.scale, "shared");
  assert.match([...texts()][0], /all such maps/);
  fill(at("scale"), "own");
  assert.match([...texts()][0], /this map alone/);
  assert.ok(first.querySelector(".scale").textContent);
});

test("a print shows all sections without folds, and closes them again", async () => {
  const step = sections().find(({ dataset }) => dataset.group === "Decoding steps");
  await goTo(`#${step.id}-inside-1`);
  const opened = at(`${step.id}-inside-1`);
  tell(globalThis, "beforeprint");
  assert.ok(sections().every((section) => !section.classList.contains("drawn") || !section.draw));
  assert.equal(document.querySelectorAll("details:not([open])").length, 0);
  assert.ok(document.querySelectorAll("details").length > 10);
  const maps = [...document.querySelectorAll("figure.map")];
  assert.ok(maps.length > 50);
  assert.ok(maps.every((figure) => figure.layout && figure.querySelector("canvas").hasAttribute("width")));
  tell(globalThis, "afterprint");
  assert.deepEqual([...document.querySelectorAll("details[open]")].filter((fold) => fold !== opened), []);
  assert.equal(opened.open, true);
});

test("the print of one section draws no others", async () => {
  refresh();
  const drawn = sections().at(-2);
  let count = 0;
  drawn.draw = () => { count++; };
  let during = null;
  globalThis.print = () => {
    during = root.dataset.printed;
    tell(globalThis, "beforeprint");
  };
  click(at("print"));
  assert.deepEqual([during, root.dataset.printed, count], ["one", undefined, 0]);
  assert.equal(document.querySelectorAll("details:not([open])").length, 0);
  tell(globalThis, "afterprint");
  tell(globalThis, "beforeprint");
  assert.equal(count, 1);
  tell(globalThis, "afterprint");
});

test("a reader sees the first screen and one section", () => {
  assert.equal(here().length, 1);
  assert.ok(textOf(document.querySelector(".first-screen h1")).length > 0);
});
