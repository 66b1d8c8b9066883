// Heat maps: what is painted for which number, at which place, and when. Argument 1 is the file of a page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { drawnOn, modulesOfPage, open, until } from "../../../support/page_in_node.mjs";

// Tells the page when a test brings an element into view.
class View {
  static watched = new Map();
  constructor(told, options) { Object.assign(this, { told, options }); View.last = this; }
  observe(node) { View.watched.set(node, this); }
  unobserve(node) { View.watched.delete(node); }
  static reaches(...nodes) {
    View.last.told(nodes.filter((node) => View.watched.has(node)).map((target) => ({ target, isIntersecting: true })));
  }
}

const document = open(process.argv[2], { IntersectionObserver: View });
const { greatestIn, groundOf, heatMap, layoutOf, paint, paintAll, paletteHere, readableOn, scaleOf, shade } =
  modulesOfPage()["drawing/heat_map.js"];
const { whenInView, whenStill } = modulesOfPage()["drawing/in_view.js"];
const main = document.querySelector("main");
const measuring = document.createElement("canvas").getContext("2d");
const widthOf = (text) => 7 * text.length;
const names = (count, name = "row") => Array.from({ length: count }, (_, n) => `${name} ${n}`);
const hex = (rgb) => "#" + rgb.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");

function shown(figure, within = main) {
  within.append(figure);
  return figure;
}

function mapOf(values, more = {}) {
  return heatMap({ title: "a map", values, rows: names(values.length), ...more });
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 20));
const calls = (figure, name) => drawnOn(figure.querySelector("canvas")).filter(([method]) => method === name);

test("a map says its shape and what it leaves out", () => {
  const small = (figure) => figure.querySelector("figcaption small").textContent;
  const label = (figure) => figure.querySelector(".grid").getAttribute("aria-label");
  assert.equal(small(mapOf([[1, 2, 3], [4, 5, 6]])), "2 × 3");
  const cut = mapOf([[1, 2]], { shape: [5, 9], cuts: ["", "the first 1 of 5 rows", undefined, "more"] });
  assert.equal(small(cut), "5 × 9 · the first 1 of 5 rows, more");
  assert.equal(label(cut), "a map, 5 × 9 · the first 1 of 5 rows, more");
  const grid = cut.querySelector("[role=grid]");
  assert.deepEqual(["tabindex", "aria-rowcount", "aria-colcount"].map((name) => grid.getAttribute(name)), ["0", "1", "2"]);
  assert.equal(cut.querySelector(".frame").hidden, true);
  assert.deepEqual([mapOf([[1]]), mapOf([[1]], { isShare: true })].map((one) => one.dataset.colours), ["signed", "share"]);
  assert.equal(mapOf([[1]]).map.columns, null);
});

test("later columns than the row are masked, and what is minus infinity", () => {
  const values = [[1, 2, 3], [4, -Infinity, 6], [7, 8, 9]];
  assert.deepEqual(mapOf(values).map.values, [[1, 2, 3], [4, null, 6], [7, 8, 9]]);
  assert.deepEqual(mapOf(values, { isMasked: true }).map.values, [[1, null, null], [4, null, null], [7, 8, 9]]);
  assert.equal(mapOf(values).map.lines, values);
});

test("the ink on each ground is the one with the larger contrast of WCAG 2.2", () => {
  const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) =>
    [[0.2126, red], [0.7152, green], [0.0722, blue]].reduce((sum, [share, part]) => sum + share * linear(part), 0);
  const scale = Array.from({ length: 18 }, (_, n) => 15 * n);
  for (const red of scale) for (const green of scale) for (const blue of scale) {
    const light = luminance([red, green, blue]);
    const [black, white] = [(light + 0.05) / 0.05, 1.05 / (light + 0.05)];
    if (Math.abs(black - white) < 1e-6) continue;
    assert.deepEqual([...readableOn([red, green, blue])], black > white ? [0, 0, 0] : [255, 255, 255]);
    assert.ok(Math.max(black, white) >= 4.5);
  }
});

test("the full colour is that of the number farthest from 0", () => {
  assert.equal(greatestIn([[1, -3], [2, -Infinity, null]]), 3);
  assert.equal(greatestIn([[0, 0]]), 1e-9); // nothing is divided by 0
  assert.equal(greatestIn([[0.25], [Infinity, NaN]]), 0.25);
});

test("a number of a text has half of its colour at most", () => {
  const ground = (value, greatest) => shade(document.createElement("i"), value, greatest).style.background;
  assert.equal(ground(1, 4), "rgb(var(--positive) / 0.125)");
  assert.equal(ground(-4, 4), "rgb(var(--negative) / 0.500)");
  assert.equal(ground(8, 4), "rgb(var(--positive) / 0.500)");
  assert.equal(ground(0, 4), "rgb(var(--positive) / 0.000)");
});

test("a cell has the ground of the page at 0, and the full colour of its sign at the greatest number", () => {
  const palette = { page: [255, 255, 255], positive: [55, 105, 155], negative: [5, 15, 25], line: [1, 2, 3] };
  assert.deepEqual(groundOf(palette, 0, 2), [255, 255, 255]);
  assert.deepEqual(groundOf(palette, 2, 2), [55, 105, 155]);
  assert.deepEqual(groundOf(palette, 1, 2), [155, 180, 205]);
  assert.deepEqual(groundOf(palette, -1, 2), [130, 135, 140]);
  assert.deepEqual(groundOf(palette, -9, 2), [5, 15, 25]);
  assert.deepEqual([groundOf(palette, null, 2), groundOf(palette, -Infinity, 2)], [[1, 2, 3], [1, 2, 3]]);
});

test("the scale of a map is its own, or that of all signed maps of its section", () => {
  const section = document.createElement("section");
  main.append(section);
  const add = (values, more) => shown(mapOf(values, more), section);
  const [small, large, share] = [add([[0.5, -2]]), add([[3]]), add([[9]], { isShare: true })];
  assert.deepEqual(scaleOf(small), { full: 2, said: "colours: ±2.00, of this map alone" });
  assert.deepEqual(scaleOf(share), { full: 1, said: "colours: 0 to 1" });
  assert.equal(scaleOf(add([[1]], { greatest: 7 })).full, 7); // a given one
  document.documentElement.dataset.scale = "shared";
  assert.deepEqual(scaleOf(small), { full: 7, said: "colours: ±7.00, of all such maps in this section" });
  assert.deepEqual(scaleOf(share), { full: 1, said: "colours: 0 to 1" });
  assert.equal(scaleOf(large).full, 7);
  document.documentElement.dataset.scale = "own";
  assert.match(scaleOf(add([[0.004]])).said, /±0\.0040,/); // two decimals would say 0.00
  assert.match(scaleOf(add([[0.01]])).said, /±0\.01,/);
  section.remove();
});

// The largest square that fits, by trying each from the largest.
function largestSquare(figure, room) {
  const { rowLabels, columnLabels, left } = figure.layout;
  const usual = columnLabels.length <= 10 ? 36 : columnLabels.length <= 20 ? 30 : 17;
  assert.equal(left, Math.max(...rowLabels.map(widthOf)) + 8);
  for (let side = usual; side > 7; side--) {
    const ends = columnLabels.map((label, n) => left + (n + 0.5) * side + widthOf(label) * Math.SQRT1_2 + 10);
    if (Math.max(...ends, left + columnLabels.length * side + 4) <= room) return side;
  }
  return 7;
}

test("the squares of a map are as large as the page and the labels allow", () => {
  for (const page of [200, 320, 390, 502, 700, 1280]) {
    for (const count of [1, 2, 5, 9, 10, 11, 15, 20, 21, 40]) {
      for (const label of ["k", "column", "a long label of a column"]) {
        const columns = names(count, label);
        const values = names(6).map(() => columns.map(() => 0.5));
        const figure = shown(mapOf(values, { columns, isShare: true }));
        const layout = figure.layout = layoutOf(measuring, figure, page);
        const { cell, left, top, width, height, every, columnLabels, writesNumbers } = layout;
        const square = largestSquare(figure, page - 2);
        const shape = [page, count, label];
        assert.equal(cell.width, square, shape);
        assert.equal(cell.height, Math.min(Math.max(square, 15), 30), shape);
        assert.equal(writesNumbers, square >= 30, shape);
        assert.equal(every, Math.ceil(13 / square));
        const reaches = columnLabels.map((one) => widthOf(one) / Math.SQRT2);
        assert.ok(Math.abs(top - 14 - Math.max(...reaches)) < 1e-9, shape);
        assert.equal(height, top + 6 * cell.height + 2, shape);
        // The last labels that are drawn end 8 pixels before the canvas' margin of 2, or the cells do.
        const ends = reaches.map((reach, n) => (n % every ? 0 : left + (n + 0.5) * square + reach + 8));
        assert.ok(Math.abs(width - 2 - Math.max(left + count * square, ...ends)) < 1e-9, shape);
        figure.remove();
      }
    }
  }
});

test("signed numbers need the widest squares, and folded maps have less room", () => {
  const laid = (count, page, isShare, fold) => {
    const figure = shown(mapOf([names(count).map(() => 1)], { rows: ["r"], columns: names(count, ""), isShare }),
      fold ? shown(document.createElement("details")) : main);
    return figure.layout = layoutOf(measuring, figure, page);
  };
  assert.equal(laid(4, 1000, false).writesNumbers, true);
  assert.ok(Math.abs(laid(4, 1000, false).top - 14 * (1 + Math.SQRT1_2)) < 1e-9); // short labels need less
  assert.equal(laid(11, 1000, false).writesNumbers, false); // 30 pixels
  assert.equal(laid(11, 1000, true).writesNumbers, true);
  const vector = (page, count, fold) => {
    const figure = shown(mapOf([names(count).map(() => 1)], { rows: ["r"] }),
      fold ? shown(document.createElement("details")) : main);
    return figure.layout = layoutOf(measuring, figure, page);
  };
  assert.deepEqual(vector(1000, 10).cell, { width: 7, height: 20 });
  assert.equal(vector(1000, 10).left, 7 + 8);
  assert.deepEqual(vector(1000, 1000).cell, { width: 3, height: 20 }); // it scrolls
  const [open, folded] = [vector(1000, 200), vector(1000, 200, true)];
  assert.ok(Math.abs(open.left + 200 * open.cell.width + 4 - 998) < 1e-9);
  assert.ok(Math.abs(folded.left + 200 * folded.cell.width + 4 - 972) < 1e-9);
  assert.equal(open.writesNumbers, false);
  assert.deepEqual([open.top, open.height, open.columnLabels, open.every], [2, 24, [], Math.ceil(13 / open.cell.width)]);
});

test("labels are shortened to 150 pixels, or to a share of a narrow page", () => {
  const label = "a label that is much longer than its space";
  const labels = (page) => {
    const figure = shown(mapOf([[1]], { rows: [label], columns: ["x".repeat(21)] }));
    return layoutOf(measuring, figure, page);
  };
  const { rowLabels, columnLabels } = labels(1280);
  assert.equal(rowLabels[0], `${label.slice(0, 20)}…`); // 21 characters of 7 pixels are 147
  assert.equal(columnLabels[0], "x".repeat(21)); // fits as it is
  assert.equal(labels(202).rowLabels[0], `${label.slice(0, 9)}…`); // 0.36 of 200 pixels are 72
  assert.equal(labels(12).rowLabels[0], "a…");
});

test("each cell is painted at its place in its colour, with its number", () => {
  const palette = paletteHere();
  assert.deepEqual([palette.page, palette.positive], [[255, 255, 255], [24, 104, 190]]);
  const values = [[2, -1, 0.04], [-Infinity, 0.5, -0.31]];
  const figure = shown(mapOf(values, { columns: ["one", "two", "شمس"] }));
  paint(figure);
  const { layout: { cell, left, top } } = figure;
  assert.deepEqual([cell.width, cell.height], [36, 30]);
  const rects = calls(figure, "fillRect");
  const expected = values.flatMap((line, row) => line.map((value, column) => [
    "fillRect", left + 36 * column, top + 30 * row, 35, 29]));
  assert.deepEqual(rects.map((call) => [...call]), expected);
  assert.deepEqual(rects.map(({ style }) => style.fillStyle), values.flat().map((value) =>
    hex(value === -Infinity ? palette.line : palette.page.map((part, n) =>
      part + (palette[value < 0 ? "negative" : "positive"][n] - part) * Math.abs(value) / 2))));
  const texts = calls(figure, "fillText");
  const numbers = texts.filter(({ style }) => style.textAlign === "center");
  assert.deepEqual(numbers.map(([, text, x, y]) => [text, x, y]), [
    ["2.0", 0, 0], ["−1.0", 1, 0], ["·", 2, 0], [".5", 1, 1], ["−.3", 2, 1]].map(([text, column, row]) =>
    [text, left + 36 * column + 18, top + 30 * row + 15]));
  assert.ok(numbers.every(({ style }) => /^11px/.test(style.font)));
  const inks = numbers.map(({ style }) => style.fillStyle);
  assert.deepEqual(inks.slice(0, 3), ["#ffffff", "#000000", "#000000"]);
  const [first, second, ...columns] = texts.filter(({ style }) => style.textAlign !== "center");
  assert.deepEqual([first, second].map(([, text, x, y]) => [text, x, y]),
    [["row 0", left - 6, top + 15], ["row 1", left - 6, top + 45]]);
  assert.equal(first.style.textAlign, "right");
  assert.deepEqual(columns.map(([, text, x, y]) => [text, x, y]), [["one", 0, 0], ["two", 0, 0], ["شمس", 0, 0]]);
  assert.deepEqual(columns.map(({ style }) => [style.direction, style.textAlign, style.fillStyle]),
    ["ltr", "ltr", "rtl"].map((direction) => [direction, "left", hex(palette.text)]));
  assert.match(columns[0].style.font, /^13px/);
  assert.deepEqual(calls(figure, "translate").map((call) => [...call]),
    [0, 1, 2].map((n) => ["translate", left + 36 * (n + 0.5), top - 6]));
  assert.deepEqual(calls(figure, "rotate").map(([, angle]) => angle), [0, 1, 2].map(() => -Math.PI / 4));
  assert.deepEqual([calls(figure, "save").length, calls(figure, "restore").length], [3, 3]);
  const [border] = calls(figure, "strokeRect");
  assert.deepEqual([...border], ["strokeRect", left - 0.5, top - 0.5, 3 * 36 + 1, 2 * 30 + 1]);
  assert.equal(border.style.strokeStyle, hex(palette.line));
});

test("shares have two decimals, and columns without room for a label have none", () => {
  const share = shown(mapOf([[0.125, 1]], { isShare: true, columns: ["a", "b"] }));
  paint(share);
  const centred = calls(share, "fillText").filter(({ style }) => style.textAlign === "center");
  assert.deepEqual(centred.map(([, text]) => text), [".13", "1.00"]);
  const many = shown(mapOf([names(150).map((_, n) => n)], { columns: names(150, "k") }));
  paint(many);
  assert.equal(many.layout.every, 2);
  const labels = calls(many, "fillText").filter(({ style }) => style.textAlign === "left").map(([, text]) => text);
  assert.deepEqual(labels, names(150, "k").filter((_, n) => n % 2 === 0));
  assert.equal(calls(many, "rotate").length, 75);
});

test("the cells of a vector leave no seam, and its rows are a pixel apart", () => {
  const figure = shown(mapOf([names(250).map((_, n) => n), names(250).map(() => 1)]));
  paint(figure);
  const [one, two] = [calls(figure, "fillRect").slice(0, 250), calls(figure, "fillRect").slice(250)];
  one.slice(1).forEach(([, x], n) => assert.equal(x, one[n][1] + one[n][3]));
  assert.ok(one.every(([, x, , width]) => Number.isInteger(x) && Number.isInteger(width)));
  assert.ok(one.every(([, , , , height]) => height === 19));
  assert.equal(two[0][2] - one[0][2], 20);
  assert.equal(one[0][1], figure.layout.left);
  assert.ok(Math.abs(one.at(-1)[1] + one.at(-1)[3] - figure.layout.left - 250 * figure.layout.cell.width) <= 0.5);
});

test("a row may have its own full colour, and chosen cells have a dashed frame", () => {
  const figure = shown(mapOf([[1, 0.5], [10, 5]], { isShare: true, columns: ["a", "b"] }));
  figure.map.full = { row: 1, greatest: 10 };
  figure.lit = [{ row: 1, column: 0 }];
  paint(figure);
  const grounds = calls(figure, "fillRect").map(({ style }) => style.fillStyle);
  assert.deepEqual(grounds.slice(0, 2), grounds.slice(2));
  const centred = calls(figure, "fillText").filter(({ style }) => style.textAlign === "center");
  assert.deepEqual(centred.map(([, text]) => text), ["1.00", ".50", "10.0", "5.0"]);
  const { left, top, cell } = figure.layout;
  const [, lit] = calls(figure, "strokeRect");
  assert.deepEqual([...lit], ["strokeRect", left + 0.5, top + cell.height + 0.5, cell.width - 2, cell.height - 2]);
  assert.equal(lit.style.strokeStyle, hex(paletteHere().text));
  const order = drawnOn(figure.querySelector("canvas")).map(([method]) => method).slice(-3);
  assert.deepEqual(order, ["strokeRect", "setLineDash", "strokeRect"]);
  assert.deepEqual(calls(figure, "setLineDash")[0][1], [3, 2]);
  figure.lit = [{ row: 0, column: 1 }];
  paint(figure);
  assert.equal(calls(figure, "strokeRect")[1][1], left + cell.width + 0.5);
  const vector = shown(mapOf([[1, 2]]));
  vector.lit = [{ row: 0, column: 1 }];
  paint(vector);
  assert.equal(calls(vector, "strokeRect")[1][3], 5); // of 7 pixels
});

test("a canvas has as many pixels as the screen", () => {
  const figure = shown(mapOf([[1, 2]], { columns: ["a", "bcd"] }));
  const canvas = figure.querySelector("canvas");
  for (const [density, factor] of [[1, 1], [1.5, 1.5], [0, 1]]) {
    globalThis.devicePixelRatio = density;
    paint(figure);
    assert.equal(canvas.width, Math.ceil(figure.layout.width * factor));
    assert.equal(canvas.height, Math.ceil(figure.layout.height * factor));
    assert.deepEqual([...calls(figure, "scale")[0]], ["scale", factor, factor]);
  }
  globalThis.devicePixelRatio = 1;
  assert.deepEqual([canvas.style.width, canvas.style.height],
    [`${figure.layout.width}px`, `${figure.layout.height}px`]);
  assert.match(figure.querySelector(".scale").textContent, /±2\.00/);
});

test("a map uses the width of the page's text without its padding", () => {
  const usual = globalThis.getComputedStyle;
  globalThis.getComputedStyle = (node) => (node === main ? { paddingLeft: "40px", paddingRight: "100.5px" } : usual(node));
  const figure = shown(mapOf([names(200).map(() => 1)], { rows: ["r"] }));
  paint(figure);
  globalThis.getComputedStyle = usual;
  const { left, cell } = figure.layout;
  assert.ok(Math.abs(left + 200 * cell.width + 4 - (Math.floor(1280 - 140.5) - 2)) < 1e-9);
});

test("maps get their size at once, and are painted when they come into view, folded ones later", async () => {
  const section = shown(document.createElement("section"));
  const fold = shown(document.createElement("details"), section);
  const [first, folded] = [shown(mapOf([[1]]), section), shown(mapOf([[1]]), fold)];
  paintAll(section);
  assert.ok(first.layout);
  assert.equal(first.querySelector("canvas").style.height, `${first.layout.height}px`);
  assert.equal(folded.layout, undefined);
  assert.equal(calls(first, "fillRect").length, 0);
  View.reaches(first);
  await until(() => calls(first, "fillRect").length === 1);
  assert.equal(folded.layout, undefined);
  fold.open = true;
  paintAll(section);
  assert.ok(folded.layout);
  View.reaches(folded);
  await until(() => calls(folded, "fillRect").length === 1);
  section.remove();
});

test("an element is drawn once in view, by what was asked last, unless it has left the page", async () => {
  const drawn = [];
  const nodes = names(3).map(() => shown(document.createElement("p")));
  nodes.forEach((node, n) => whenInView(node, () => drawn.push(n)));
  whenInView(nodes[0], () => drawn.push("newer"));
  View.last.told([{ target: nodes[1], isIntersecting: false }]);
  await pause();
  assert.deepEqual(drawn, []);
  assert.ok(View.watched.has(nodes[1]));
  nodes[2].remove();
  View.reaches(...nodes);
  await pause();
  assert.deepEqual(drawn, ["newer", 1]);
  assert.ok(nodes.every((node) => !View.watched.has(node)));
  View.reaches(...nodes);
  await pause();
  assert.deepEqual(drawn, ["newer", 1]);
  assert.equal(View.last.options.rootMargin, "200px");
});

test("between long drawings the page answers, and it is still after the last one", async () => {
  const clock = globalThis.performance;
  let now = 0;
  globalThis.performance = { now: () => now };
  const events = [];
  const draw = (name, ms) => () => {
    now += ms;
    events.push(name);
  };
  const nodes = names(7).map(() => shown(document.createElement("p")));
  nodes.forEach((node, n) => whenInView(node, draw(n, n < 3 ? 1 : 30)));
  View.reaches(...nodes);
  setImmediate(() => events.push("answer"));
  assert.deepEqual(events, [0, 1, 2, 3]); // short ones follow each other at once
  await whenStill();
  assert.deepEqual(events.filter((one) => one !== "answer"), [0, 1, 2, 3, 4, 5, 6]);
  assert.ok(events.indexOf("answer") < events.indexOf(6), events);
  const later = shown(document.createElement("p"));
  whenInView(later, draw("later", 1));
  View.reaches(later);
  await whenStill();
  assert.equal(events.at(-1), "later");
  globalThis.performance = clock;
});
