// The parts of figures, alone: tables, pieces, bars, arcs, products, files. Argument 1 is the file of a page
// with a model, which contains all modules.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, modulesOfPage, open } from "../../../support/page_in_node.mjs";

const document = open(process.argv[2]);
const of = (name) => modulesOfPage()[`drawing/${name}.js`];
const { drawArcs, legendOf, smallMaps, tableOfArcs } = of("attention");
const { csvOf, tableOfPanels } = of("csv");
const { element, nodes, optionGroups, svgMaker } = of("elements");
const { counted, formatNumber, formatPercent, formatPrecise, formatSigned, shortNumber } = of("numbers");
const parts = of("parts");
const { pictureOf } = of("product");
const { hex, rectShape, SvgContext, svgFile, textShape } = of("svg");
const { rowsOfTerms, termsTable } = of("terms");
const { areRightToLeft, isRightToLeft, visible, written } = of("text");
const svg = () => document.createElementNS("http://www.w3.org/2000/svg", "svg");
const texts = (node, kind) => [...node.querySelectorAll(kind)].map((one) => one.textContent);
const classOf = (node) => node.getAttribute("class") || null; // linkedom's is "" without one
const attribute = (node, ...names) => names.map((name) => (name === "class" ? classOf(node) : node.getAttribute(name)));
const near = (found, expected, off = 1e-9) => assert.ok(Math.abs(found - expected) <= off, `${found} is not ${expected}`);

// Attention of two heads: three rows look at two pieces.
const weights = [0.5, 0.019, 0.02, 1, 0.25, 0.75, 0.1, 0.9, 0, 0.4, 0.3, 0.7];
const attention = { shape: [2, 3, 2], data: Float32Array.from(weights) };
const labels = { rows: ["a", "b", "c"], columns: ["x", "y"] };

test("small maps colour what is not faint, and choose their head", () => {
  const chosen = [];
  const figure = smallMaps({ name: "Layer 1" }, attention, labels, 0.5, ({ target }) => chosen.push(target));
  const maps = [...figure.querySelectorAll("button:not(details button)")];
  assert.deepEqual(maps.map((map) => map.getAttribute("aria-label")),
    [1, 2].map((h) => `Layer 1, head ${h}: show its numbers`));
  assert.deepEqual(maps.map((map) => map.querySelector("small").textContent), ["head 1", "head 2"]);
  maps.forEach((map, h) => {
    const cells = [...map.querySelectorAll(".small-map i")];
    const expected = weights.slice(6 * h, 6 * h + 6)
      .map((weight, n) => [`${Math.floor(n / 2) + 1} / ${(n % 2) + 1}`, Math.min(1, weight / 0.5)])
      .filter(([, share]) => share >= 0.02);
    assert.deepEqual(cells.map(({ style }) => [style.gridArea, style.background]),
      expected.map(([area, share]) => [area, `rgb(var(--positive) / ${share.toFixed(2)})`]));
  });
  assert.equal(maps[0].querySelector(".small-map").style.gridTemplate, "repeat(3, 8px) / repeat(2, 8px)");
  click(maps[1]);
  assert.equal(chosen.length, 1);
  const sized = (length, keys) => {
    const large = { shape: [1, length, keys], data: new Float32Array(length * keys) };
    const rows = Array.from({ length }, String);
    return smallMaps({ name: "" }, large, { rows, columns: [] }, 1, () => {}).querySelector(".small-map").style.gridTemplate;
  };
  assert.match(sized(20, 10), /repeat\(20, 5px\)/); // of 110 pixels
  assert.match(sized(10, 20), /repeat\(10, 5px\)/);
  assert.match(sized(100, 1), /repeat\(100, 2px\)/);
});

test("an arc leads from each row to what it looks at, fainter for smaller weights", () => {
  const drawn = svg();
  drawArcs(drawn, attention, labels.rows, labels.columns);
  const visibleOnes = weights.map((weight, n) => ({ weight, head: Math.floor(n / 6), from: Math.floor((n % 6) / 2), to: n % 2 }))
    .filter(({ weight }) => weight >= 0.02 - 1e-8);
  const arcs = [...drawn.querySelectorAll("path")];
  assert.equal(arcs.length, visibleOnes.length - 1); // 0.02 is below 0.02 as float32
  const y = (place, head) => 14 + 24 * place + [-1.5, 1.5][head];
  visibleOnes.filter(({ weight }) => weight !== 0.02).forEach(({ weight, head, from, to }, n) => {
    assert.deepEqual(attribute(arcs[n], "class", "stroke-opacity", "data-head"), ["arc", weight.toFixed(2), String(head)]);
    const [start, end] = [y(from, head), y(to, head)];
    assert.equal(arcs[n].getAttribute("d"), `M120 ${start} C170 ${start} 190 ${end} 240 ${end}`);
    assert.equal(arcs[n].style.stroke, `hsl(${[210, 347][head]} 70% 50%)`);
  });
  const label = (one) => [one.textContent, ...attribute(one, "x", "y", "text-anchor")];
  assert.deepEqual([...drawn.querySelectorAll("text")].map(label), [
    ...labels.rows.map((text, n) => [text, "112", `${18 + 24 * n}`, "end"]),
    ...labels.columns.map((text, n) => [text, "248", `${18 + 24 * n}`, "start"])]);
  assert.equal(drawn.getAttribute("viewBox"), `0 0 360 ${14 + 24 * 3}`);
  const wide = svg();
  drawArcs(wide, { shape: [16, 1, 2], data: new Float32Array(32).fill(1) }, ["a"], ["x", "y"]);
  const starts = [...wide.querySelectorAll("path")].map((arc) => Number(arc.getAttribute("d").split(/[M ]/)[2]));
  assert.deepEqual([starts[0], starts.at(-1)], [14 - 7.5, 14 + 7.5]); // many heads stay near their row
  assert.equal(wide.getAttribute("viewBox"), `0 0 360 ${14 + 24 * 2}`);
});

test("the table of arcs has all weights, and the legend all heads", () => {
  assert.deepEqual(tableOfArcs(attention, labels.rows, labels.columns), [["head", "row", "looks at", "weight"],
    ...weights.map((weight, n) => [Math.floor(n / 6) + 1, "abc"[Math.floor(n / 2) % 3], "xy"[n % 2], Math.fround(weight)])]);
  const legend = legendOf(4);
  assert.deepEqual(legend.map((one) => one.textContent), [" head 1", " head 2", " head 3", " head 4"]);
  const colours = legend.map((one) => one.querySelector("i").style.background);
  assert.deepEqual(colours, [210, 347, 124, 261].map((hue) => `hsl(${hue} 70% 50%)`));
});

test("a CSV file has quoted texts, and the shortest number that is the same float32", () => {
  assert.equal(csvOf([["a", "b,c", 'd"e', " f", "g ", "h\ni", ""], [1, null, undefined, -0.5]]),
    'a,"b,c","d""e"," f","g ","h\ni",\r\n1,,,-0.5\r\n');
  const numbers = [Math.fround(0.1), 0.1, Infinity, -Infinity, NaN, 1 / 3, Math.fround(1 / 3), 16777216, 0, 1e-40,
    Math.fround(3.4028234e38), Math.fround(0.1234567891)];
  const found = csvOf([numbers]).trimEnd().split(",");
  assert.deepEqual(found.slice(0, 6), ["0.1", "0.1", "inf", "-inf", "NaN", "0.3333333333333333"]);
  found.forEach((text, n) => {
    if (!Number.isFinite(numbers[n])) return;
    const isFloat = Math.fround(numbers[n]) === numbers[n];
    assert.equal(isFloat ? Math.fround(Number(text)) : Number(text), numbers[n]);
  });
  assert.deepEqual([found[6], found[7], found[8], found[11]], ["0.33333334", "16777216", "0", "0.12345679"]);
});

test("several matrices in a file have their titles", () => {
  const panel = (title) => ({ title, rows: ["r"], columns: ["c", "d"], values: [[1, 2]] });
  assert.deepEqual(tableOfPanels([panel("one")]), [["row", "c", "d"], ["r", 1, 2]]);
  assert.deepEqual(tableOfPanels([panel("one"), panel("two")]),
    [["map", "row", "c", "d"], ["one", "r", 1, 2], ["two", "r", 1, 2]]);
  assert.deepEqual(tableOfPanels([{ ...panel("one"), columns: null }])[0], ["row", "0", "1"]);
  assert.deepEqual(tableOfPanels([{ title: "", rows: [], columns: null, values: [] }]), [["row"]]);
});

test("an element has listeners, attributes that are on, and children without nothing", () => {
  let count = 0;
  const made = element("button", { onclick: () => { count++; }, hidden: true, disabled: false, title: null, lang: undefined,
    "data-n": 0, class: "a\u202eb" }, "text", null, [undefined, [false, element("b", {}, 0)]], "\u0007");
  click(made);
  assert.equal(count, 1);
  assert.deepEqual(attribute(made, "hidden", "disabled", "title", "lang", "data-n", "class"),
    ["", null, null, null, "0", "a\\u202eb"]);
  assert.equal(made.textContent, "text0\\x07");
  assert.equal(made.childNodes.length, 3);
  assert.equal(nodes(["a", [null, "b"]]).length, 2);
  assert.equal(element("p").outerHTML, "<p></p>");
  const [group] = optionGroups([["G", [["v", "one"], ["w", "two"]]]]);
  assert.deepEqual([group.getAttribute("label"), ...[...group.children].map((one) => `${one.value}:${one.textContent}`)],
    ["G", "v:one", "w:two"]);
  const shape = svgMaker(svg())("rect", { x: 0, class: null }, "inside");
  assert.deepEqual([...attribute(shape, "x", "class"), shape.textContent, shape.namespaceURI],
    ["0", null, "inside", "http://www.w3.org/2000/svg"]);
});

test("numbers have a minus sign, no −0, and 0 % or 100 % only if they are exactly that", () => {
  const cases = [
    [formatNumber, [-0.001], "0.00"], [formatNumber, [-1.25, 1], "−1.3"], [formatNumber, [Infinity], "∞"],
    [formatNumber, [-Infinity], "−∞"], [formatNumber, [NaN], "NaN"], [formatNumber, [12.345, 0], "12"],
    [shortNumber, [0.05, 1], ".1"], [shortNumber, [0.049, 1], "·"], [shortNumber, [-0.5, 1], "−.5"], [shortNumber, [10.25, 1], "10.3"],
    [formatPrecise, [1e-4], "0.0001"], [formatPrecise, [-9.9e-5], "−9.90e−5"], [formatPrecise, [0], "0.0000"],
    [formatPrecise, [NaN], "NaN"],
    [formatSigned, [2], "+2.0000"], [formatSigned, [-2], "−2.0000"], [formatSigned, [0], "+0.0000"],
    [formatPercent, [0], "0.00%"], [formatPercent, [0.00004], "< 0.01%"], [formatPercent, [0.00005], "0.01%"],
    [formatPercent, [0.99995], "> 99.99%"], [formatPercent, [0.99994], "99.99%"], [formatPercent, [1], "100.00%"],
    [formatPercent, [0.123], "12.30%"],
    [counted, [1, "step"], "1 step"], [counted, [0, "step"], "0 steps"], [counted, [1234, "step"], "1,234 steps"],
  ];
  for (const [format, given, text] of cases) assert.equal(format(...given), text, `${format.name}(${given})`);
});

test("a quotation keeps its own writing direction", () => {
  const p = parts.text("The piece “شمس” is", "followed by “b”.");
  assert.equal(p.textContent, "The piece “شمس” is followed by “b”.");
  assert.deepEqual(texts(p, "bdi"), ["شمس", "b"]);
});

test("pieces are in reading order, with the newest and the next one marked", () => {
  const classes = (node) => [...node.querySelectorAll("bdi")].map((one) => [one.textContent, one.className]);
  assert.deepEqual(classes(parts.tokens("L", ["a", "b"], { newest: true, follows: "c" })),
    [["a", "token"], ["b", "token new"], ["c", "token follows"]]);
  const plain = parts.tokens("L", ["a", "b"]);
  assert.deepEqual(classes(plain), [["a", "token"], ["b", "token"]]);
  assert.equal(plain.querySelector(".label").textContent, "L");
  assert.equal(plain.querySelectorAll("i").length, 0);
  const arrow = (pieces) => {
    const made = parts.tokens("L", pieces, { follows: "x" });
    return [made.querySelector("i").textContent, made.querySelector(".row").getAttribute("dir")];
  };
  assert.deepEqual(arrow(["a"]), ["→", null]);
  assert.deepEqual(arrow(["<s>", "شمس"]), ["←", "rtl"]);
});

test("tables have titles, rows, and at most one marked row", () => {
  const made = parts.table(["one", "two"], [[1, "b"], [3, "d"]], 1);
  assert.deepEqual([texts(made, "th"), texts(made, "td")], [["one", "two"], ["1", "b", "3", "d"]]);
  const classes = (table) => [...table.querySelectorAll("tbody tr")].map(classOf);
  assert.deepEqual([classes(made), classes(parts.table(["a"], [[1], [2]]))], [[null, "marked"], [null, null]]);
  assert.equal(made.querySelector("caption"), null);
  const steps = parts.stepsTable(["t"], [parts.labelled("1", parts.cell("x"), "kind")], "said", "steps wide", "small");
  assert.deepEqual([steps.className, steps.querySelector("caption").className, steps.querySelector("caption").textContent],
    ["steps wide", "small", "said"]);
  assert.deepEqual([steps.querySelector("tbody th").textContent, steps.querySelector("tbody tr").className], ["1", "kind"]);
  assert.deepEqual(texts(parts.idsTable({ ids: [7, 9], texts: ["a", "b"] }), "td"), ["0", "a", "7", "1", "b", "9"]);
});

test("candidates show their probabilities, and the one that was chosen", () => {
  const made = parts.candidatesCell([{ piece: "a", probability: 0.5 }, { piece: "b", probability: 0.25 }], "b");
  const shown = [...made.querySelectorAll("span")];
  assert.deepEqual(shown.map((one) => [one.className, one.textContent, one.style.getPropertyValue("--share")]),
    [["candidate", "a 50.00%", "50%"], ["candidate chosen", "b 25.00%", "25%"]]);
  assert.deepEqual([parts.lensCell("a", 0.5, null), parts.lensCell("a", 0.5, "next: b")]
    .map((one) => [classOf(one), one.textContent]), [["agrees", "a 50.00%"], [null, "a 50.00%next: b"]]);
  const candidates = [{ id: 4, text: "a", logit: 1.5, probability: 0.5 }, { id: 5, text: "b", logit: -2, probability: 0.25 }];
  const bars = parts.bars(candidates, 5);
  const rows = [...bars.querySelectorAll("tbody tr")];
  assert.deepEqual(rows.map((row) => [classOf(row), row.dataset.probability, ...texts(row, "td"),
    row.querySelector(".bar span").style.width]),
  [[null, "0.500000", "a", "50.00%", "", "1.50", "50%"], ["chosen", "0.250000", "b", "25.00%", "", "−2.00", "25%"]]);
  assert.equal(bars.candidates, candidates);
  assert.equal(parts.shareOfOthers({ vocabulary_size: 1002 }, candidates), "The other 1,000 pieces share 25.00%.");
  assert.match(parts.shareOfOthers({ vocabulary_size: 2 }, [{ probability: 1.01 }]), /share 0\.00%/);
});

test("links, headings and folds have their addresses and keys", () => {
  assert.equal(parts.boxLink("t", "encoder.ids").querySelector("a").getAttribute("href"), "#box-encoder.ids");
  assert.deepEqual([parts.heading("t", "k"), parts.heading("t"), parts.fold("t", "in", "k")]
    .map((one) => [one.localName, one.getAttribute("data-key"), one.textContent]),
  [["h2", "k", "t"], ["h2", null, "t"], ["details", "k", "tin"]]);
});

// The side of a box for so many rows or columns, and rectangles {x, y, width, height, class} in its picture.
const side = (count) => Math.round(Math.max(16, Math.min(110, 13 * Math.log2(count + 1))));
const rects = (picture) => [...picture.querySelectorAll("rect")].map((one) =>
  [...attribute(one, "x", "y", "width", "height").map(Number), classOf(one)]);

test("a picture of a product has boxes of the matrices' shapes, and lights what met", () => {
  const [picture] = pictureOf([{ name: "x", rows: 5, columns: 32, row: 2, column: null }, "·",
    { name: "W", rows: 32, columns: 9, row: null, column: 8 }, "=", { name: "y", rows: 5, columns: 9, row: 4, column: 3 },
    { name: "b", rows: 1, columns: 1, row: null, column: null }]);
  assert.deepEqual(pictureOf([]), []);
  assert.equal(picture.getAttribute("aria-label"), "x (5 × 32) · W (32 × 9) = y (5 × 9) b (1 × 1)");
  assert.deepEqual(texts(picture, "figcaption"), ["x", "W", "y", "b"]);
  assert.deepEqual(texts(picture, "small"), ["5 × 32", "32 × 9", "5 × 9", "1 × 1"]);
  assert.deepEqual(texts(picture, ":scope > span"), ["·", "="]);
  const figures = [...picture.querySelectorAll("figure")].map(rects);
  const [s1, s5, s9, s32] = [1, 5, 9, 32].map(side);
  const thick = (size, count) => Math.max(3, size / count);
  const expected = [
    [[0, 0, s32, s5, "matrix-box"], [0, (s5 - thick(s5, 5)) * 2 / 4, s32, thick(s5, 5), "lit"]],
    [[0, 0, s9, s32, "matrix-box"], [s9 - thick(s9, 9), 0, thick(s9, 9), s32, "lit"]],
    [[0, 0, s9, s5, "matrix-box"], [(s9 - thick(s9, 9)) * 3 / 8, s5 - thick(s5, 5), thick(s9, 9), thick(s5, 5), "lit number"]],
    [[0, 0, s1, s1, "matrix-box"]],
  ];
  figures.forEach((found, n) => {
    assert.equal(found.length, expected[n].length);
    found.forEach((rect, r) => rect.forEach((number, i) => (i < 4 ? near(number, expected[n][r][i])
      : assert.equal(number, expected[n][r][i]))));
  });
  const [first] = picture.querySelectorAll("svg");
  assert.deepEqual(attribute(first, "width", "height", "viewBox"), [`${s32 + 2}`, `${s5 + 2}`, `-1 -1 ${s32 + 2} ${s5 + 2}`]);
  assert.deepEqual([s1, side(1e6), side(7)], [16, 110, 39]);
  const [one] = pictureOf([{ name: "v", rows: 1, columns: 1, row: 0, column: 0 }]);
  assert.deepEqual(rects(one)[1], [0, 0, 16, 16, "lit number"]);
  const [thin] = pictureOf([{ name: "v", rows: 1000, columns: 1000, row: 0, column: 999 }]);
  assert.deepEqual(rects(thin)[1], [107, 0, 3, 3, "lit number"]); // visible in a large matrix
});

test("an SVG file has the ground of the page, rounded places, and no empty attributes", () => {
  const file = svgFile({ width: 10.26, height: 5 }, { page: [255, 0, 16] }, "<g/>");
  assert.match(file, /^<svg [^>]*width="10\.3" height="5" viewBox="0 0 10\.3 5"/);
  assert.match(file, /<rect width="10\.3" height="5" fill="#ff0010"\/><g\/><\/svg>\n$/);
  assert.equal(hex([0, 15.6, 255]), "#0010ff");
  assert.equal(rectShape([1.04, 2, 3, 4], { rx: 0, fill: "", stroke: null }), '<rect x="1" y="2" width="3" height="4" rx="0"/>');
  assert.equal(textShape("a<b>&\u0001", 1, 2.25, "#000", { direction: false }), '<text x="1" y="2.3" fill="#000">a&lt;b&gt;&amp;</text>');
});

test("what is painted for a file is the same as on a canvas", () => {
  const context = new SvgContext();
  Object.assign(context, { fillStyle: "#111111", strokeStyle: "#222222", font: "20px x", textAlign: "right", direction: "ltr" });
  context.fillRect(1, 2, 3, 4);
  context.strokeRect(1, 2, 3, 4);
  context.setLineDash([3, 2]);
  context.strokeRect(1, 2, 3, 4);
  context.fillText("t", 5, 10);
  const shapes = [...context.shapes];
  assert.deepEqual(shapes, ['<rect x="1" y="2" width="3" height="4" fill="#111111"/>',
    '<rect x="1" y="2" width="3" height="4" fill="none" stroke="#222222"/>',
    '<rect x="1" y="2" width="3" height="4" fill="none" stroke="#222222" stroke-dasharray="3 2"/>',
    '<text x="5" y="17" fill="#111111" font-size="20" text-anchor="end">t</text>']);
  const drawText = (settings) => {
    Object.assign(context, settings);
    context.fillText("t", 0, 0);
    return context.shapes.at(-1);
  };
  const anchor = (settings) => /text-anchor="(\w+)"/.exec(drawText(settings))[1];
  assert.deepEqual([["left", "ltr"], ["right", "ltr"], ["center", "ltr"], ["left", "rtl"], ["right", "rtl"], ["center", "rtl"]]
    .map(([textAlign, direction]) => anchor({ textAlign, direction })), ["start", "end", "middle", "end", "start", "middle"]);
  assert.match(drawText({ direction: "rtl" }), /direction="rtl"/);
  context.save();
  context.translate(10, 20.06);
  context.rotate(-Math.PI / 4);
  assert.match(drawText({}), /transform="translate\(10 20\.1\)rotate\(-45\)"/);
  context.restore();
  assert.doesNotMatch(drawText({}), /transform/);
});

const term = (value, more = {}) => ({ place: `p${value}`, a: value, b: 2, factor: null, value, ...more });

test("of many terms, the largest and the marked ones are listed, and the others as a sum", () => {
  const values = Array.from({ length: 20 }, (_, n) => (n % 2 ? -1 : 1) * (n + 1));
  const wasShown = ({ value }) => value === 1;
  const rows = rowsOfTerms({ terms: values.map((value) => term(value)), added: 0.5, divisor: 4, value: -3 }, wasShown);
  const listed = rows.filter((row) => row.term).map(({ value, mark }) => [value, mark]);
  const largest = [...values].sort((a, b) => Math.abs(b) - Math.abs(a)).slice(0, 12);
  assert.deepEqual(listed, [...largest.map((value) => [value, null]), [1, "shown before"]]);
  const rest = values.filter((value) => !largest.includes(value) && value !== 1);
  const sum = values.reduce((total, value) => total + value, 0) + 0.5;
  assert.deepEqual(rows.filter((row) => row.label).map(({ label, value, mark }) => [label, value, mark]), [
    ["7 smaller terms", rest.reduce((total, value) => total + value, 0), undefined],
    ["+ bias", 0.5, undefined], ["sum", sum, undefined], ["÷ √4", 2, undefined], ["this number", -3, "asked"]]);
});

test("equal terms stay in their order, and a sum that is the number itself is not repeated", () => {
  const rows = rowsOfTerms({ terms: [term(1), term(-1), term(1)], added: null, divisor: null, value: 1 });
  assert.deepEqual(rows.map(({ label, value }) => [label, value]),
    [[undefined, 1], [undefined, -1], [undefined, 1], ["this number", 1]]);
  const share = rowsOfTerms({ terms: [term(1), term(3, { isAsked: true })], added: null, divisor: null, value: 0.75 });
  assert.deepEqual(share.map(({ label, value, mark }) => [label, value, mark]),
    [[undefined, 3, "asked"], [undefined, 1, null], ["sum", 4, undefined]]);
  const whole = rowsOfTerms({ terms: [term(4, { isAsked: true })], added: null, divisor: null, value: 4 });
  assert.deepEqual(whole.map(({ label }) => label), [undefined, "sum"]);
  assert.deepEqual(rowsOfTerms({ terms: [], added: null, divisor: null, value: 5 }).map(({ label }) => label), ["this number"]);
  assert.deepEqual(rowsOfTerms({ terms: [term(1)], added: 2, divisor: null, value: 3 }).map(({ label }) => label),
    [undefined, "+ bias", "this number"]);
});

test("a number with a place is a button that asks where it comes from", () => {
  const asked = [];
  const rows = rowsOfTerms({ terms: [term(4, { factor: "f", isAsked: true }), term(2)], added: null, divisor: null, value: 4 });
  const table = termsTable(rows, ({ value }) => `term ${value}`, (place) => asked.push(place), ["left", "right"]);
  assert.deepEqual(texts(table, "thead th"), ["term", "left", "right", "result"]);
  const lines = [...table.querySelectorAll("tbody tr")];
  assert.deepEqual(lines.map((line) => [...attribute(line, "class", "aria-current"), line.querySelector("th").textContent,
    ...texts(line, "td")]), [["marked", "true", "term 4 (asked)", "4.0000", "× 2.0000", "4.0000"],
    [null, null, "term 2", "2.0000", "× 2.0000", "2.0000"], ["sum", null, "sum", "", "", "6.0000"]]);
  const buttons = [...table.querySelectorAll("button")];
  buttons.forEach(click);
  assert.deepEqual(asked, ["p4", "f", "p2"]);
  assert.match(buttons[0].getAttribute("aria-label"), /^4\.0000/);
  const alone = rowsOfTerms({ terms: [term(1, { b: null })], added: null, divisor: 9, value: 3 });
  assert.deepEqual(texts(termsTable(alone, () => "t", () => {}), "thead th"), ["term", "number", "result"]);
  const last = termsTable(alone, () => "t", () => {}).querySelector("tbody tr:last-child");
  assert.deepEqual([last.className, last.querySelector("th").textContent], ["marked", "this number"]);
  assert.equal(termsTable(alone, () => "t", () => {}).getAttribute("tabindex"), "0");
});

test("characters that could control or hide text are shown as escapes", () => {
  const cases = [["a\tb\nc", "a\tb\nc"], ["\r", "\\r"], ["\x1b", "\\x1b"], ["\x7f", "\\x7f"], ["\xad", "\\xad"], ["\u200b", "\\u200b"],
    ["\u202e", "\\u202e"], ["\u{e0041}", "\\U000e0041"], ["می‌خ", "می‌خ"], ["a\u200cb", "a\\u200cb"], ["👩‍🚀", "👩‍🚀"],
    ["❤\ufe0f", "❤\ufe0f"], [" \ufe0f", " \\ufe0f"], ["\u0100", "\u0100"], ["\u061c", "\\u061c"], [7, "7"]];
  for (const [text, shown] of cases) assert.equal(visible(text), shown);
  assert.deepEqual([written("a\x00"), written("")], ["a\\x00", "(nothing)"]);
});

test("the direction of a text is that of its first letter", () => {
  assert.deepEqual(["abc", "شمس", "12 شمس", "1 a شمس", "12", ""].map(isRightToLeft), [false, true, true, false, false, false]);
  assert.equal(areRightToLeft(["<s>", null, "▁שלום", "a"]), true);
  assert.equal(areRightToLeft(["<s>", "▁", "a", "שלום"]), false);
  assert.equal(areRightToLeft(["<", "s", ">"]), false);
});
