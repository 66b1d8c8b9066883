// The page that a program uses, and what helps to read it. Arguments: the page's file, and what Python
// explains of the page's text.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";

import { fill, modulesOfPage, open, tell, textOf, until } from "../../../../support/page_in_node.mjs";

export const explained = JSON.parse(readFileSync(process.argv[3], "utf8"));

// Opens the page; `edit` may change the model in it, and returns the changed page or nothing.
export async function openedPage(edit = () => {}) {
  const file = `${process.argv[2]}.edited.html`;
  const place = /(<script type="application\/json" id="live-model">)(.*?)(<\/script>)/s;
  const html = readFileSync(process.argv[2], "utf8");
  const packed = JSON.parse(place.exec(html)[2]);
  const edited = edit(packed, html) ?? html;
  const json = JSON.stringify(packed).replaceAll("<", "\\u003c");
  writeFileSync(file, edited.replace(place, (_, begin, __, end) => begin + json + end));
  const document = open(file, { fragment: "#live" });
  const modules = modulesOfPage();
  const of = (name) => modules[`explain/live/page/${name}.js`];
  const model = await of("loading").modelInPage("live-model");
  const box = document.querySelector("[data-first=sentence]");
  const said = document.querySelector("[data-first=state]");
  const stateText = () => textOf(said);
  // Resolves once everything is computed and drawn.
  const computed = [...document.querySelectorAll("[data-live], [data-first], [data-walk]")];
  const settled = () => until(() =>
    stateText().includes("Computed in") && !computed.some((one) => one.hasAttribute("aria-busy")));
  const type = (text) => {
    fill(box, text);
    return settled();
  };
  await settled();
  return { document, modules, of, model, packed, box, stateText, settled, type,
    section: document.getElementById("live"),
    part: (name) => computed.find((one) => one.dataset.live === name),
    made: () => textOf(document.querySelector("[data-first=made]")) };
}

// The result of a sliced computation, and of one by its name in a module.
export function atOnce(slices) {
  for (;;) {
    const { done, value } = slices.next();
    if (done) return value;
  }
}

// A number as a page writes it.
export const numberIn = (text) => Number(text.replaceAll("−", "-").replace("%", "").replace("∞", "Infinity"));

// The texts of a table's body, row by row, and of its head.
export const rowsIn = (table) => [...table.querySelectorAll("tbody tr")].map((row) => [...row.children].map(textOf));
export const titlesOf = (table) => [...table.querySelectorAll("thead th")].map(textOf);

export const close = (found, expected, name = "", tolerance = 1e-5) => assert.ok(
  found === expected || Math.abs(found - expected) <= tolerance * Math.max(1, Math.abs(expected)),
  `${name}: ${found} is not ${expected}`);

// Whether a text is a number with four decimals, or its power of ten, of this value.
export function isWritten(text, value, name = text) {
  assert.match(text, /^−?(\d+\.\d{4}|\d\.\d\de−?\d+|∞)$/, name);
  const power = text.includes("e");
  assert.equal(power, value !== 0 && Math.abs(value) < 1e-4, name);
  close(numberIn(text), value, name, power ? 0.006 * Math.abs(value) : Math.abs(value) === Infinity ? 0 : 6e-5);
}

export const percent = (share) => (share > 0 && share < 0.00005 ? "< 0.01%"
  : share >= 0.99995 && share < 1 ? "> 99.99%" : `${(100 * share).toFixed(2)}%`);

export const sumOf = (numbers) => numbers.reduce((sum, one) => sum + one, 0);

export function logSoftmax(logits) {
  const most = Math.max(...logits);
  const normaliser = most + Math.log(sumOf(Array.from(logits, (one) => Math.exp(one - most))));
  return Array.from(logits, (one) => one - normaliser);
}

export const rowOf = ({ shape, data }, n) => Array.from(data.subarray(n * shape.at(-1), (n + 1) * shape.at(-1)));

// Clicks a cell of a heat map, as soon as it is painted.
export async function choose(figure, row, column) {
  const { left, top, cell } = await until(() => figure.layout);
  tell(figure.querySelector("canvas"), "click",
    { offsetX: left + (column + 0.5) * cell.width, offsetY: top + (row + 0.5) * cell.height });
}
