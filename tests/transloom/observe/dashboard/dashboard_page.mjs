// The dashboard's page about made-up runs, and what a user finds on it. Argument 2 of a program is the
// file of a report about three runs.

import { readFileSync, writeFileSync } from "node:fs";

import { drawnOn, holdClock, modulesOfPage, open, tell, textOf } from "../../../support/page_in_node.mjs";

const FROZEN = /<script type="application\/json" id="frozen">(.*?)<\/script>/s;
const BOX = { left: 100, top: 50, width: 1280, height: 210, right: 1380, bottom: 260, x: 100, y: 50 };
const HTML = readFileSync(process.argv[2], "utf-8");

// The responses in the report, by path; a program may change them before it opens the page.
export const answers = JSON.parse(FROZEN.exec(HTML)[1]);
export const runs = answers["/api/runs"].runs;
export const SPIKE = 137; // the step at which the loss of the first run has a spike

// Opens the report with the responses as they are now.
export function openReport(given = {}) {
  const frozen = JSON.stringify(answers).replaceAll("<", "\\u003c");
  return opened(HTML.replace(FROZEN, () => `<script type="application/json" id="frozen">${frozen}</script>`), given);
}

// Opens the page of a live dashboard, which asks `answers` for each path.
export function openLive(given = {}) {
  return opened(HTML.replace(FROZEN, ""), given);
}

export const pass = holdClock();

function opened(html, given) {
  const file = `${process.argv[2]}.${process.pid}.html`;
  writeFileSync(file, html);
  const document = open(file, given);
  document.defaultView.Element.prototype.getBoundingClientRect = () => BOX;
  return document;
}

// The exports of a module of the opened page.
export const moduleOf = (name) => modulesOfPage()[name];

export const one = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];
export const texts = (selector, root = document) => all(selector, root).map(textOf);
export const button = (text, root = document) => all("button", root).find((each) => each.textContent === text);
export const labelled = (label, root = document) => all("[aria-label]", root)
  .find((each) => each.getAttribute("aria-label") === label);
export const rowsOf = (root) => all("tbody tr", root).map((row) => [...row.children].map(textOf));
export const regions = (label, root = document) => all("section[aria-label], [role=region]", root)
  .filter((each) => each.getAttribute("aria-label") === label);
export const region = (label, root = document) => regions(label, root)[0];
export const said = () => textOf(one(".curves [role=status]"));

// Follows a link to a view, and waits until the page has drawn it.
export async function go(fragment) {
  location.hash = fragment;
  await settled();
}

// Waits until the page has read and drawn what it can now; its clock goes on by some milliseconds.
export async function settled() {
  for (let n = 0; n < 12; n++) {
    await new Promise((resolve) => setImmediate(resolve));
    pass(1);
  }
}

// A number with the digits that the page shows.
export const rounded = (value) => String(Number(value < 1 ? value.toPrecision(4) : value.toFixed(value < 10 ? 3 : 2)));

// Charts.

export const charts = () => [...one(".curves .charts").children];
export const chart = (title) => charts().find((each) => each.querySelector("h3").textContent === title);
export const readout = (title) => texts(".readout li", chart(title));
export const slider = (title) => one("[role=slider]", chart(title));
export const valueText = (title) => slider(title).getAttribute("aria-valuetext");
export const plotOf = (title) => one(".u-over", chart(title));

// The rectangle of the lines on a canvas, in pixels of the canvas; its size never changes here.
const frames = new Map();
export function frame(title) {
  if (!frames.has(title)) frames.set(title, measured(title));
  return frames.get(title);
}

function measured(title) {
  const pixels = (name) => Number.parseFloat(plotOf(title).style[name]) * devicePixelRatio;
  return { left: pixels("left"), top: pixels("top"), width: pixels("width"), height: pixels("height") };
}

// Moves the mouse over a chart, to pixels of the page from the corner of its lines.
export function mouse(type, title, left, top = 50, more = {}) {
  const at = { clientX: BOX.left + left, clientY: BOX.top + top, button: 0, movementX: 1, movementY: 1 };
  tell(type === "mouseup" ? document : plotOf(title), type, { ...at, ...more });
}

// What is visible on a canvas since it was cleared: lines {points, colour, width, alpha}, areas and texts.
export function visibleOn(canvas) {
  const calls = drawnOn(canvas);
  const begin = calls.findLastIndex(([method]) => method === "clearRect");
  const found = { lines: [], areas: [], texts: [] };
  let [path, clips] = [[], []];
  for (const call of calls.slice(begin + 1)) {
    const [method, ...given] = call;
    const { strokeStyle, fillStyle, lineWidth: width, globalAlpha: alpha = 1 } = call.style;
    const shape = given[0]?.drawn ? pointsOf(given[0].drawn) : path;
    if (method === "beginPath") path = [];
    if (method === "moveTo" || method === "lineTo") path.push(call);
    if (method === "clip") clips.push(shapeOf(shape));
    if (method === "restore") clips = [];
    if (method === "stroke") found.lines.push({ ...shapeOf(shape), colour: strokeStyle, width, alpha });
    if (method === "fill") found.areas.push({ ...shapeOf(shape), colour: fillStyle, alpha, clips: [...clips] });
    if (method === "fillText") found.texts.push(String(given[0]));
  }
  return found;
}

const pointsOf = (calls) => calls.filter(([method]) => ["moveTo", "lineTo", "arc", "rect"].includes(method));
const shapeOf = (calls) => ({
  points: calls.filter(([method]) => method === "moveTo" || method === "lineTo").map(([, x, y]) => [x, y]),
  dots: calls.filter(([method]) => method === "arc").map(([, x, y, radius]) => [x, y, radius]),
});
