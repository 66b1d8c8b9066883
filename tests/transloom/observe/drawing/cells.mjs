// What the keyboard, screen readers and clicks meet in a map: argument 1 is the folder of the pages, in
// which the few nodes of a page that they need are objects.

import assert from "node:assert/strict";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

class Element {
  style = {};
  children = [];
  attributes = {};

  constructor(tag) { this.tagName = tag; }
  setAttribute(name, value) { this.attributes[name] = value; }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  getBoundingClientRect() { return { width: 9, height: 9, right: 9, top: 9 }; }
  scrollIntoView() {}
  matches() { return true; }
  contains() { return false; }
  closest(wanted) { return wanted === ".grid" ? grid : figure; }
  querySelector(wanted) { return { ".frame": frame, ".visited": visited, ".grid": grid }[wanted]; }
  dispatchEvent({ detail }) { chosen.push(detail); }
}

const [figure, grid, frame, visited, tip] = ["FIGURE", "DIV", "I", "DIV", "DIV"].map((tag) => new Element(tag));
grid.parentElement = figure;
const listeners = {};
let chosen = [];
globalThis.innerWidth = 100;
globalThis.CustomEvent = class { constructor(name, { detail }) { this.detail = detail; } };
globalThis.document = {
  getElementById: () => tip, createElement: (tag) => new Element(tag), createTextNode: (text) => text,
  querySelectorAll: () => [frame], addEventListener: (name, listener) => { listeners[name] = listener; },
};
await import(pathToFileURL(`${process.argv[2]}/drawing/cells.js`));

const map = {
  rows: ["je", "suis"], columns: ["I", "am", "."], values: [[0, 0.25, null], [-1.5, 1, 2]], lines: ["first", "second"],
};
figure.layout = { left: 5, top: 7, cell: { width: 10, height: 20 } };

function press(...keys) {
  grid.at = undefined;
  chosen = [];
  for (const key of keys) listeners.keydown({ key, target: grid, preventDefault() {} });
}

// The row, column and text that a screen reader gets, and the place of the frame.
function heard(...keys) {
  press(...keys);
  const [line] = visited.children;
  const [head, cell] = line.children;
  return [line.attributes["aria-rowindex"], cell.attributes["aria-colindex"], head.children[0] + cell.children[0],
    frame.style.left, frame.style.top];
}

function clicked(offsetX, offsetY) {
  chosen = [];
  listeners.click({ target: new Element("CANVAS"), offsetX, offsetY });
  return chosen;
}

test("arrow keys visit cells, and stay within the map", () => {
  figure.map = map;
  assert.deepEqual(heard("ArrowRight"), ["1", "2", "je → am: 0.2500", "15px", "7px"]);
  assert.deepEqual(heard("ArrowLeft"), ["1", "1", "je → I: 0.0000", "5px", "7px"]);
  assert.deepEqual(heard("End"), ["1", "3", "je → .: masked", "25px", "7px"]);
  assert.deepEqual(heard("ArrowDown", "ArrowDown", "End", "ArrowRight"), ["2", "3", "suis → .: 2.0000", "25px", "27px"]);
  assert.deepEqual(heard("ArrowDown", "End", "Home", "ArrowUp"), ["1", "1", "je → I: 0.0000", "5px", "7px"]);
});

test("a map without names of columns counts dimensions", () => {
  figure.map = { ...map, columns: undefined };
  assert.deepEqual(heard("End"), ["1", "3", "je, dimension 2: masked", "25px", "7px"]);
});

test("Enter and a click choose a number, and nothing beside the cells", () => {
  figure.map = map;
  press("Enter");
  assert.deepEqual(chosen, [{ line: "first", column: 0 }]);
  press("ArrowDown", "ArrowRight", "Enter", "x");
  assert.deepEqual(chosen, [{ line: "second", column: 1 }]);
  assert.deepEqual(clicked(5, 7), [{ line: "first", column: 0 }]);
  assert.deepEqual(clicked(34.9, 46.9), [{ line: "second", column: 2 }]);
  for (const [x, y] of [[35, 7], [4.9, 7], [5, 47], [5, 6.9]]) assert.deepEqual(clicked(x, y), []);
});

test("a map without numbers to lead to chooses none", () => {
  figure.map = { ...map, lines: undefined };
  press("Enter");
  assert.deepEqual(chosen, []);
});

test("a hint goes where the pointer leaves, and the frame with the focus", () => {
  figure.map = map;
  listeners.pointermove({ target: new Element("CANVAS"), offsetX: 16, offsetY: 28, clientX: 50, clientY: 60 });
  assert.deepEqual([tip.textContent, tip.hidden, tip.style.left, tip.style.top], ["suis → am: 1.0000", false, "64px", "41px"]);
  listeners.pointermove({ target: new Element("P") });
  assert.equal(tip.hidden, true);
  press("ArrowRight");
  assert.equal(frame.hidden, false);
  listeners.focusout({ target: grid, relatedTarget: null });
  assert.deepEqual([frame.hidden, tip.hidden], [true, true]);
});
