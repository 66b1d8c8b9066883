// Saved figures, and the numbers of cells by pointer and keyboard. Argument 1 is the file of a page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, modulesOfPage, open, press, saved, tell, until } from "../../../support/page_in_node.mjs";

const BOX = { left: 0, top: 0, right: 100, bottom: 20, width: 100, height: 20 };
const document = open(process.argv[2]);
const { savable, savableMatrices, makeSavable, standalone, svgOfElement } = modulesOfPage()["drawing/saving.js"];
const { heatMap, paint } = modulesOfPage()["drawing/heat_map.js"];
const { element } = modulesOfPage()["drawing/elements.js"];
const main = document.querySelector("main");
const tip = document.getElementById("tip");
await until(() => document.querySelectorAll("main > section").length > 5);

const menuOf = (holder) => holder.querySelector(":scope > details.save");
async function save(holder, kind) {
  const count = saved.length;
  click([...menuOf(holder).querySelectorAll("button")].find((button) => button.textContent === kind));
  await until(() => saved.length > count);
  const { name, blob } = saved.at(-1);
  return { name, type: blob.type, text: await blob.text() };
}
const rowsOf = (csv) => csv.trimEnd().split("\r\n").map((line) => line.split(","));
const shown = (node, within = main) => {
  within.append(node);
  return node;
};
function sectionOf(title) {
  return shown(element("section", {}, element("h1", {}, title)));
}

test("a figure is saved as CSV, SVG and PNG under its title", async () => {
  const figure = shown(element("figure", {}, element("figcaption", {}, "said")));
  let count = 0;
  const given = { title: () => "Layer 1: “it's” – 日本", table: () => [["a", 0.5 + count++]], svg: () => "<svg/>" };
  savable(figure, given);
  savable(figure, given);
  assert.equal(figure.querySelectorAll(".save").length, 1);
  assert.equal(menuOf(figure).querySelector("summary").getAttribute("aria-label"), "Save: Layer 1: “it's” – 日本");
  assert.equal(count, 0); // computed when it is saved
  assert.deepEqual(await save(figure, "CSV"), { name: "Layer-1-it-s-日本.csv", type: "text/csv", text: "a,0.5\r\n" });
  assert.deepEqual(await save(figure, "SVG"), { name: "Layer-1-it-s-日本.svg", type: "image/svg+xml", text: "<svg/>" });
  assert.equal((await save(figure, "CSV")).text, "a,1.5\r\n");
  const named = async (title) => {
    const one = shown(element("p"));
    savable(one, { ...given, title: () => title });
    return (await save(one, "CSV")).name;
  };
  assert.equal(await named("–"), "figure.csv");
  assert.equal(await named(" x "), "x.csv");
  assert.equal(await named("y".repeat(200)), `${"y".repeat(100)}.csv`);
});

test("a PNG has twice the size, or the largest that a canvas can have", async () => {
  const drawn = [];
  const [usual, size] = [globalThis.Image, { width: 300, height: 200.5 }];
  globalThis.Image = class { async decode() { Object.assign(this, size); } };
  const prototype = Object.getPrototypeOf(document.createElement("canvas"));
  const context = prototype.getContext;
  prototype.getContext = function () {
    return Object.assign(context.call(this), { drawImage: (image, ...place) =>
      drawn.push([decodeURIComponent(image.src), ...place, this.width, this.height]) });
  };
  prototype.toBlob = function (done, type) { done(new Blob(["png"], { type })); };
  const figure = shown(element("p"));
  savable(figure, { title: () => "t", table: () => [], svg: () => "<svg>#</svg>" });
  assert.deepEqual(await save(figure, "PNG"), { name: "t.png", type: "image/png", text: "png" });
  assert.deepEqual(drawn[0], ["data:image/svg+xml;charset=utf-8,<svg>#</svg>", 0, 0, 600, 401, 600, 401]);
  Object.assign(size, { width: 16384, height: 100 });
  await save(figure, "PNG");
  assert.deepEqual(drawn[1].slice(1), [0, 0, 16384, 100, 16384, 100]);
  globalThis.Image = usual;
  prototype.getContext = context;
});

test("the address of a saved file is given back after a minute", async () => {
  const [timer, revoke] = [globalThis.setTimeout, URL.revokeObjectURL];
  const waits = [];
  const revoked = [];
  const figure = shown(element("p"));
  savable(figure, { title: () => "t", table: () => [], svg: () => "" });
  globalThis.setTimeout = (told, ms) => (ms >= 1000 ? waits.push([told, ms]) : timer(told, ms));
  URL.revokeObjectURL = (address) => revoked.push(address);
  await save(figure, "CSV");
  globalThis.setTimeout = timer;
  assert.deepEqual([waits.length, waits[0][1], revoked.length], [1, 60_000, 0]);
  waits[0][0]();
  assert.match(revoked[0], /^blob:/);
  URL.revokeObjectURL = revoke;
});

test("maps and bars of a section get a button each when they are in view", async () => {
  const section = sectionOf("A title");
  const figure = shown(heatMap({ title: "head 1", values: [[0.5, 0.25]], rows: ["r"], columns: ["c", "d"] }), section);
  const { bars } = modulesOfPage()["drawing/parts.js"];
  const table = shown(bars([{ id: 1, text: "x", logit: 1.5, probability: 0.75 }], 1), section);
  makeSavable(section);
  makeSavable(section);
  await until(() => section.querySelectorAll(".save").length === 2);
  const caption = figure.querySelector("figcaption");
  const ofMap = await save(caption, "CSV");
  assert.deepEqual([ofMap.name, ofMap.text], ["A-title-head-1.csv", "row,c,d\r\nr,0.5,0.25\r\n"]);
  const holder = table.nextElementSibling;
  assert.equal(holder.className, "saved");
  const ofBars = await save(holder, "CSV");
  assert.deepEqual([ofBars.name, ofBars.text], ["A-title.csv", "piece,probability,logit\r\nx,0.75,1.5\r\n"]);
  makeSavable(section);
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(section.querySelectorAll(".save").length, 2);
});

test("a figure of matrices is saved with their titles", async () => {
  const figure = shown(element("figure", {}, element("figcaption", {}, "said")));
  const panel = (title) => ({ title, rows: ["r"], columns: ["c"], values: [[1]] });
  savableMatrices(figure, "two", () => [panel("a"), panel("b")]);
  const { name, text } = await save(figure.querySelector("figcaption"), "CSV");
  assert.deepEqual([name, text], ["two.csv", "map,row,c\r\na,r,1\r\nb,r,1\r\n"]);
});

test("the saved figure of the model has the parameters of all boxes", async () => {
  const { facts } = modulesOfPage()["explain/walk/walk.js"];
  const holder = document.querySelector("#section-1 [data-boxes]");
  await until(() => menuOf(holder));
  const { name, text } = await save(holder, "CSV");
  const [, ...rows] = rowsOf(text.replaceAll(/"[^"]*"/g, ""));
  assert.deepEqual(rows.slice(0, -1).map(([key]) => key), facts.boxes);
  assert.equal(rows.slice(0, -1).reduce((sum, row) => sum + Number(row[3]), 0), facts.parameters);
  assert.equal(Number(rows.at(-1)[3]), facts.parameters);
  const title = document.querySelector("#section-1 svg.blueprint.wide title").textContent;
  assert.equal(name, `${title.replace(/[^\p{L}\p{M}\p{N}]+/gu, "-").replace(/^-|-$/g, "")}.csv`);
  const file = await save(holder, "SVG");
  assert.doesNotMatch(file.text, / (class|style|tabindex|role|href|id|data-[a-z]+|aria-[a-z]+)="|<a[ >]/);
  const svg = document.querySelector("#section-1 svg.blueprint.wide");
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  assert.match(file.text, new RegExp(`^<svg [^>]*width="${width}" height="${height}"`));
});

test("an SVG alone has the properties of the page's style as attributes", () => {
  const usual = globalThis.getComputedStyle;
  globalThis.getComputedStyle = (node) => ({ getPropertyValue: (name) =>
    (name.startsWith("--") ? "1 2 3" : `${node.localName}'s ${name}`) });
  const holder = shown(element("div"));
  holder.innerHTML = '<svg viewBox="0 0 50 40"><a href="#x" class="y"><rect x="1" id="i" data-n="2"></rect></a>' +
    "<text aria-hidden='true'>t</text><g role='x'><path d='M0 0'></path></g></svg>";
  const file = standalone(holder.firstChild);
  globalThis.getComputedStyle = usual;
  assert.match(file, /^<svg xmlns="[^"]*" width="50" height="40" viewBox="0 0 50 40"/);
  const copied = document.createElement("div");
  copied.innerHTML = file;
  const [ground, rect] = copied.querySelectorAll("rect");
  assert.equal(ground.getAttribute("fill"), "#010203");
  const attributes = (node) => Object.fromEntries([...node.attributes].map(({ name, value }) => [name, value]));
  const styled = (kind, names) => Object.fromEntries(names.map((name) => [name, `${kind}'s ${name}`]));
  const ofShape = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity"];
  assert.deepEqual(attributes(rect), { x: "1", ...styled("rect", ofShape) });
  assert.deepEqual(attributes(copied.querySelector("path")), { d: "M0 0", ...styled("path", ofShape) });
  assert.deepEqual(attributes(copied.querySelector("text")),
    styled("text", ["fill", "font-size", "font-weight", "text-anchor"]));
  assert.deepEqual([...copied.querySelectorAll("g")].map(attributes), [{}, {}]); // links are groups
  assert.equal(holder.querySelectorAll("[class], [href], [id]").length, 2); // the page's own is unchanged
});

test("an element is saved as it is drawn: grounds, borders, lines of text, maps, without what is hidden", () => {
  const usual = globalThis.getComputedStyle;
  const styles = new Map();
  const plain = { backgroundColor: "rgba(0, 0, 0, 0)", borderTopWidth: "0px", borderTopColor: "rgb(0, 0, 0)",
    borderTopLeftRadius: "0px", color: "rgb(1, 2, 3)", fontSize: "20px", fontWeight: "400", direction: "ltr",
    paddingLeft: "0px", paddingRight: "0px" };
  globalThis.getComputedStyle = (node) => ({ ...usual(node), getPropertyValue: () => "1 2 3", ...plain, ...styles.get(node) });
  const place = (node, left, top, width, height) => {
    node.getBoundingClientRect = () => ({ left, top, width, height, right: left + width, bottom: top + height });
    return node;
  };
  const ranges = document.createRange;
  document.createRange = () => {
    let [node, start, end] = [];
    return {
      setStart(one, at) { [node, start] = [one, at]; }, setEnd(_, at) { end = at; },
      getBoundingClientRect() { // letters of 10 pixels, four in a line; a space has no width
        const left = 110 + 10 * (start % 4);
        const top = 200 + 30 * Math.floor(start / 4);
        return { left, right: left + 10 * (end - start), top, bottom: top + 20, width: node.data.slice(start, end) === " " ? 0 : 10 };
      },
    };
  };
  const root = place(shown(element("div", {}, "ab cde")), 100, 200, 80, 60);
  styles.set(root, { backgroundColor: "rgba(255, 0, 0, 0.5)", borderTopWidth: "2px", borderTopColor: "rgb(0, 255, 0)", borderTopLeftRadius: "4px" });
  place(shown(element("i", { class: "controls" }, "x"), root), 0, 0, 900, 900);
  place(shown(element("i", { hidden: true }, "x"), root), 0, 0, 900, 900);
  place(shown(element("i", {}), root), 0, 0, 0, 900); // without an area
  const map = shown(heatMap({ title: "", values: [[1]], rows: ["r"], columns: ["c"] }), root);
  for (const node of map.querySelectorAll("*")) place(node, 0, 0, 0, 0);
  place(map, 0, 0, 0, 0);
  paint(map);
  place(map.querySelector("canvas"), 120, 250, 30, 30);
  map.querySelectorAll("figcaption, .visited").forEach((node) => node.remove());
  const rtl = place(shown(element("b", {}, "z"), root), 110, 200, 10, 20);
  styles.set(rtl, { direction: "rtl", fontWeight: "700" });
  const file = svgOfElement(root);
  globalThis.getComputedStyle = usual;
  document.createRange = ranges;
  assert.match(file, /^<svg [^>]*width="108" height="108"/); // from 100 to 180 and 200 to 280, and margins of 14
  assert.match(file, /<rect x="14" y="14" width="80" height="60" rx="4" fill="#ff0000" fill-opacity="0\.5" stroke="#00ff00" stroke-opacity="1" stroke-width="2"\/>/);
  const lines = [...file.matchAll(/<text x="([^"]*)" y="([^"]*)" fill="([^"]*)" font-size="20" font-weight="(\d+)" direction="(\w+)">(\w+)</g)]
    .map(([, ...found]) => found);
  assert.deepEqual(lines, [["24", "31", "#010203", "400", "ltr", "abc"], ["24", "61", "#010203", "400", "ltr", "de"],
    ["34", "31", "#010203", "700", "rtl", "z"]]);
  assert.match(file, /<g transform="translate\(34 64\)"><text [^>]*>r<\/text>/);
  assert.equal([...file.matchAll(/<g /g)].length, 1);
  assert.doesNotMatch(file, />x</);
});

const map = { title: "m", values: [[0, 0.25, -Infinity], [-1.5, 1, 2]], rows: ["je", "suis"], columns: ["I", "am", "."] };
function grid(more = {}) {
  const figure = shown(heatMap({ ...map, ...more }), sectionOf("Cells"));
  paint(figure);
  figure.querySelector(".frame").getBoundingClientRect = () => ({ ...BOX, right: 300, top: 200 });
  return { figure, node: figure.querySelector(".grid"), frame: figure.querySelector(".frame") };
}
const heard = (node) => document.getElementById(node.getAttribute("aria-activedescendant"));

test("arrow keys move by a cell, stop at the edges, and say the number", () => {
  const { figure, node, frame } = grid();
  const { left, top, cell } = figure.layout;
  const at = (key) => {
    const kept = !press(node, key);
    const one = heard(node);
    return [kept, one.parentElement.textContent, one.getAttribute("aria-colindex"), one.parentElement.getAttribute("aria-rowindex")];
  };
  assert.deepEqual(at("ArrowRight"), [true, "je → am: 0.2500", "2", "1"]);
  assert.deepEqual(["left", "top", "width", "height"].map((side) => frame.style[side]),
    [left + cell.width, top, cell.width, cell.height].map((pixels) => `${pixels}px`));
  assert.equal(frame.hidden, false);
  assert.equal(tip.textContent, "je → am: 0.2500");
  assert.deepEqual([tip.hidden, tip.style.left, tip.style.top], [false, `${300 - 10 + 14}px`, `${200 - 20 - 10}px`]);
  assert.deepEqual(at("ArrowDown"), [true, "suis → am: 1.0000", "2", "2"]);
  assert.deepEqual(at("ArrowDown"), [true, "suis → am: 1.0000", "2", "2"]);
  assert.deepEqual(at("ArrowLeft"), [true, "suis → I: −1.5000", "1", "2"]);
  assert.deepEqual(at("ArrowLeft"), [true, "suis → I: −1.5000", "1", "2"]);
  assert.deepEqual(at("ArrowUp"), [true, "je → I: 0.0000", "1", "1"]);
  assert.deepEqual(at("ArrowUp"), [true, "je → I: 0.0000", "1", "1"]);
  assert.deepEqual(at("End"), [true, "je → .: masked", "3", "1"]);
  assert.deepEqual(at("ArrowRight"), [true, "je → .: masked", "3", "1"]);
  assert.deepEqual(at("Home"), [true, "je → I: 0.0000", "1", "1"]);
  const before = node.getAttribute("aria-activedescendant");
  assert.equal(at("Home")[0], true);
  assert.notEqual(node.getAttribute("aria-activedescendant"), before); // announced again
  assert.equal(press(node, "x"), true);
  for (const held of ["altKey", "ctrlKey", "metaKey", "shiftKey"]) {
    assert.equal(press(node, "ArrowRight", { [held]: true }), true, held);
    assert.match(heard(node).parentElement.textContent, /je → I/);
  }
  assert.ok(document.scrolledTo === frame);
});

test("a vector's dimensions are numbered, and keys elsewhere are the page's", () => {
  const { node } = grid({ columns: null });
  press(node, "End");
  assert.equal(heard(node).parentElement.textContent, "je, dimension 2: masked");
  assert.equal(tip.textContent, "je, dimension 2: masked");
  assert.equal(press(main, "ArrowRight"), true);
  const figure = shown(heatMap(map), sectionOf("Not painted"));
  assert.equal(press(figure.querySelector(".grid"), "ArrowRight"), true);
});

const pointer = (figure, type, x, y, more = {}) =>
  tell(figure.querySelector("canvas"), type, { offsetX: x, offsetY: y, clientX: 50, clientY: 60, ...more });

test("the number under the pointer is shown beside it, and nowhere else", () => {
  const { figure } = grid();
  const { left, top, cell } = figure.layout;
  const [right, bottom] = [left + 3 * cell.width, top + 2 * cell.height];
  const at = (x, y, more) => {
    pointer(figure, "pointermove", x, y, more);
    return tip.hidden ? null : tip.textContent;
  };
  assert.equal(at(left, top), "je → I: 0.0000");
  assert.deepEqual([tip.style.left, tip.style.top], ["64px", "30px"]);
  assert.equal(at(right - 0.1, bottom - 0.1), "suis → .: 2.0000");
  assert.equal(at(left + cell.width, top + cell.height), "suis → am: 1.0000");
  for (const [x, y] of [[left - 0.1, top], [left, top - 0.1], [right + 0.1, top], [left, bottom + 0.1]]) assert.equal(at(x, y), null);
  at(left, top, { clientX: 1270, clientY: 3 }); // within the window
  assert.deepEqual([tip.style.left, tip.style.top], [`${1280 - 100 - 8}px`, "4px"]);
  at(left, top, { clientX: -90 });
  assert.equal(tip.style.left, "4px");
  pointer(figure, "pointerdown", left, top);
  assert.equal(tip.hidden, false);
  tell(document, "scroll");
  assert.equal(tip.hidden, true);
  pointer(figure, "pointermove", left, top);
  tell(figure.querySelector("figcaption"), "pointermove", { offsetX: left, offsetY: top });
  assert.equal(tip.hidden, true);
});

test("a click or Enter chooses a number: the row's numbers and the column", () => {
  const one = grid();
  const other = grid();
  const chosen = [];
  main.addEventListener("numberchosen", ({ detail }) => chosen.push([map.values.indexOf(detail.line), detail.column]));
  const { left, top, cell } = one.figure.layout;
  pointer(one.figure, "click", left + 2.5 * cell.width, top + 1.5 * cell.height);
  assert.deepEqual(chosen, [[1, 2]]);
  assert.deepEqual([one.frame.hidden, other.frame.hidden], [false, true]);
  pointer(one.figure, "click", left - 1, top);
  assert.equal(chosen.length, 1);
  press(one.node, "Enter"); // the cell that was clicked
  assert.deepEqual(chosen[1], [1, 2]);
  press(one.node, "ArrowLeft"); // moves from there
  press(one.node, "Enter");
  assert.deepEqual(chosen[2], [1, 1]);
  press(other.node, "Enter"); // begins at the first cell
  assert.deepEqual([chosen[3], one.frame.hidden, other.frame.hidden], [[0, 0], true, false]);
  one.figure.map.lines = undefined;
  press(one.node, "Enter");
  assert.equal(chosen.length, 4);
});

test("a cell is shown while its map has the focus by keyboard", () => {
  const { figure, node, frame } = grid();
  const matches = node.matches.bind(node);
  let isVisible = false;
  node.matches = (kind) => (kind === ":focus-visible" ? isVisible : matches(kind));
  tell(node, "focusin");
  assert.equal(frame.hidden, true);
  isVisible = true;
  tell(node, "focusin");
  assert.equal(frame.hidden, false);
  assert.match(heard(node).parentElement.textContent, /^je → I/);
  press(node, "ArrowDown");
  tell(node, "focusout", { relatedTarget: figure.querySelector("figcaption") });
  assert.deepEqual([frame.hidden, tip.hidden], [false, true]); // within the figure
  tell(node, "focusin");
  assert.match(heard(node).parentElement.textContent, /^suis → I/); // where it was
  tell(node, "focusout", { relatedTarget: null });
  assert.deepEqual([frame.hidden, tip.hidden], [true, true]);
  tip.hidden = false;
  tell(document.getElementById("menu"), "focusout", { relatedTarget: null });
  assert.equal(tip.hidden, false);
  tell(document.getElementById("menu"), "focusin");
  assert.equal(tip.hidden, false);
});
