// The charts of several runs: their lines, marks, cursor, keys, zoom and numbers. See dashboard_page.mjs.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, press, tell, textOf } from "../../../support/page_in_node.mjs";
import * as page from "./dashboard_page.mjs";
import {
  all, answers, button, chart, charts, frame, go, labelled, mouse, one, readout, rounded, settled, slider, texts,
  valueText, visibleOn,
} from "./dashboard_page.mjs";

const LOSS = "training loss";
const TWO = "#runs=id-0,id-1";
const [FIRST, SECOND, THIRD] = page.runs.map(({ name }) => name);
const STEPS = 420; // of the first run; the second has 380
const curves = (id) => answers[`/api/runs/${id}/curves`].columns;
const event = (step, kind) => ({ step, event: kind, words: kind, details: {} });

// The second run lacks a loss and two times; the third has 40 points and as many events, and one before.
curves("id-1").loss[99] = null;
curves("id-1").wall_seconds[0] = curves("id-1").wall_seconds[49] = null;
for (const values of Object.values(curves("id-2"))) values.splice(0, 300);
answers["/api/runs/id-2"].events = Array.from({ length: 41 }, (_, n) => event(300 + n, "skipped"));
answers["/api/runs/id-0"].events.push(event(280, "resumed"), event(280, "resized"), event(280, "preempted"),
  event(STEPS, "resized"));
answers["/frozen"].run = "id-2"; // which the page shows unless its address says more

const seen = []; // what the page observes until it is in view
page.openReport({
  fragment: TWO, devicePixelRatio: 2,
  IntersectionObserver: class {
    constructor(tell) { this.tell = tell; }
    observe(target) { seen.push({ target, tell: (isIntersecting) => this.tell([{ target, isIntersecting }]) }); }
  },
});
await settled();
const loss = curves("id-0").loss;
const canvas = (title = LOSS) => one("canvas", chart(title));
const width = () => frame(LOSS).width / devicePixelRatio; // in pixels of the page, as the mouse moves
const leftOf = (step, [from, to] = [1, STEPS]) => ((step - from) / (to - from)) * width();
const onCanvas = (step, range) => frame(LOSS).left + 2 * leftOf(step, range);
const dialog = () => one("dialog");
const heading = () => dialog().open && textOf(one("h2", dialog()));
const closeStep = async () => { click(button("Close", dialog())); await settled(); };
const zoom = () => /zoom=([\d.]+)\.\.([\d.]+)/.exec(location.hash)?.slice(1).map(Number);
const long = (shown) => shown.lines.filter(({ points }) => points.length > 36);
const closeTo = (found, expected, within = 1) => assert.ok(Math.abs(found - expected) <= within,
  `${found}, not ${expected}`);

// The position of a value on the canvas, from the positions of two labels of the vertical axis.
function heights(title, transform = (value) => value) {
  const labels = page.visibleOn(canvas(title));
  const calls = canvas(title).getContext("2d").drawn.filter(([method]) => method === "fillText");
  const vertical = calls.slice(-labels.texts.length).filter(([, , x]) => x < frame(title).left);
  const [low, high] = [vertical[0], vertical.at(-1)].map(([, text, , y]) => [transform(Number(text)), y]);
  return (value) => low[1] + ((transform(value) - low[0]) / (high[0] - low[0])) * (high[1] - low[1]);
}


test("a chart is drawn when it comes into view, or when all of the page is printed", async () => {
  assert.ok(!canvas());
  seen[0].tell(false);
  assert.ok(!canvas());
  seen[0].tell(true);
  await settled();
  assert.ok(canvas());
  assert.equal(all("canvas", one(".charts")).length, 1);
  dispatchEvent(new Event("beforeprint"));
  await settled();
  assert.equal(all(".charts canvas").length, charts().length);
});

test("a chart is wider than high, without a legend", () => {
  assert.ok(canvas().height * 2 < canvas().width);
  assert.ok(!one(".u-legend"));
  assert.ok(frame(LOSS).width > 0.9 * canvas().width);
  assert.ok(frame(LOSS).height > 0.7 * canvas().height);
  assert.ok(frame(LOSS).top < 0.1 * canvas().height);
});

test("a line leads through each point of a run", () => {
  const shown = visibleOn(canvas());
  const [first, second] = long(shown);
  const y = heights(LOSS);
  assert.equal(first.points.length, STEPS);
  first.points.forEach(([left, top], n) => {
    closeTo(left, onCanvas(n + 1));
    closeTo(top, y(loss[n]), 2);
  });
  assert.equal(second.points.length, 379); // without the unknown value
  closeTo(second.points[0][0], onCanvas(1));
  closeTo(second.points.at(-1)[0], onCanvas(380));
  assert.ok(shown.lines.every(({ dots }) => !dots.length) && shown.areas.every(({ dots }) => !dots.length));
  assert.equal(shown.areas.filter(({ points }) => points.length > 3).length, 0); // no bands: each step is a point
});

test("a line has the colour of its run, and is drawn over a grid of thin lines", () => {
  const shown = visibleOn(canvas());
  const colours = all(".readout li .swatch", chart(LOSS)).map(({ className }) => `var(--${className.split(" ")[1]})`);
  assert.deepEqual(long(shown).map(({ colour, alpha }) => [colour, alpha]), colours.map((colour) => [colour, 1]));
  assert.notEqual(colours[0], colours[1]);
  const grid = shown.lines.filter(({ colour }) => colour === "var(--grid)");
  assert.equal(grid.length, 2); // along each axis, and no ticks
  assert.ok(grid.every(({ width: its }) => its === devicePixelRatio));
  assert.ok(long(shown).every(({ width: its }) => its > devicePixelRatio && its < 3 * devicePixelRatio));
});

test("labels of the axes are steps and values", () => {
  const labels = visibleOn(canvas()).texts.map(Number);
  assert.ok(labels.includes(100) && labels.includes(400) && labels.includes(4));
  assert.ok(labels.every(Number.isFinite));
  const space = 2 * width() / labels.filter((label) => label > 10).length;
  assert.ok(space > 100 && space < 250, `a label each ${space} pixels`);
});

test("an event is marked on its step, from the top of the chart to its bottom", () => {
  const { top, height } = frame(LOSS);
  const shown = visibleOn(canvas());
  const steps = [117, 151, 200, 280, 300, STEPS];
  const lines = shown.lines.filter(({ alpha }) => alpha < 1);
  const places = [...new Set(lines.map(({ points: [[left]] }) => left))].sort((a, b) => a - b);
  assert.deepEqual(places, steps.map((step) => Math.round(onCanvas(step)) + 0.5));
  for (const { points, width: its } of lines) {
    const [[left]] = points;
    assert.deepEqual(points, [[left, top], [left, top + height]]);
    assert.equal(its, devicePixelRatio);
  }
  const heads = shown.areas.filter(({ points }) => points.length === 3);
  assert.equal(heads.length, lines.length); // once per place and kind, though two runs have the event
  assert.equal(heads.length, 9);
  for (const { points: [[left, above], [right], [middle, below]], alpha } of heads) {
    assert.ok(places.includes(middle));
    assert.deepEqual([above, below, alpha], [top, top + 12, 1]); // 6 pixels of the page
    assert.deepEqual([middle - left, right - middle], [8, 8]);
  }
  const kind = (name) => `var(--mark-${answers["/api/facts"].events.find((its) => its.name === name).mark})`;
  assert.equal(lines[0].colour, kind("skipped"));
  assert.ok(heads.some(({ points, colour }) => points[2][0] === places[2] && colour === kind("resized")));
});

test("events outside the visible part have no mark", async () => {
  await go(`${TWO}&zoom=100..299`);
  const range = [100, 299];
  const shown = visibleOn(canvas());
  const places = new Set(shown.lines.filter(({ alpha }) => alpha < 1).map(({ points: [[left]] }) => left));
  assert.deepEqual([...places], [117, 151, 200, 280].map((step) => Math.round(onCanvas(step, range)) + 0.5));
});

test("of more than 40 marks only their heads are drawn, which are smaller", async () => {
  await go("#runs=id-2&zoom=300.5..340.5");
  let shown = visibleOn(canvas());
  const { top, height } = frame(LOSS);
  const ends = (found) => new Set(found.lines.filter(({ alpha }) => alpha < 1).map(({ points }) => points[1][1]));
  assert.deepEqual([...ends(shown)], [top + height]);
  assert.equal(shown.areas.filter(({ points }) => points.length === 3).length, 40);
  await go("#runs=id-2&zoom=299.5..340.5");
  shown = visibleOn(canvas());
  assert.deepEqual([...ends(shown)], [top]);
  const heads = shown.areas.filter(({ points }) => points.length === 3);
  assert.equal(heads.length, 41);
  assert.ok(heads.every(({ points: [[left], [right]] }) => right - left === 6));
});

test("each of at most 40 points is drawn as a dot", async () => {
  await go("#runs=id-2");
  assert.equal(Math.max(...visibleOn(canvas()).areas.map(({ dots }) => dots.length)), 40);
  const dots = visibleOn(canvas()).areas.flatMap((area) => area.dots);
  assert.ok(dots.every(([, , radius]) => radius > 1 && radius <= 3 * devicePixelRatio));
});

test("the mouse reads the values of all runs at its place, on each chart", async () => {
  await go(TWO);
  assert.deepEqual(readout(LOSS), [`${FIRST}1.148`, `${SECOND}1.207`]); // the newest
  assert.match(valueText(LOSS), /^newest, /);
  assert.equal(slider(LOSS).getAttribute("aria-valuenow"), String(STEPS));
  mouse("mousemove", LOSS, leftOf(100.3));
  await settled();
  const shown = rounded(loss[99]);
  assert.deepEqual(readout(LOSS), ["step 100.3", FIRST + shown, `${SECOND}–`]); // the second has no loss there
  assert.equal(valueText(LOSS), `step 100.3, ${FIRST} ${shown}, ${SECOND} –`);
  const bleu = answers["/api/runs/id-0"].validations[0].scores.bleu.value;
  assert.deepEqual(readout("BLEU").slice(0, 2), ["step 100.3", FIRST + rounded(bleu)]); // of step 75
  const line = one(".u-cursor-x", chart("BLEU"));
  assert.ok(!line.classList.contains("u-off"));
  closeTo(Number(/translate\(([\d.]+)px/.exec(line.style.transform)[1]), leftOf(100.3));
  assert.ok(one(".u-cursor-y", chart("BLEU")).classList.contains("u-off"));
  closeTo(Number(slider(LOSS).getAttribute("aria-valuenow")), 100.3, 0.01);
  mouse("mousemove", LOSS, 0);
  await settled();
  assert.deepEqual(readout(LOSS).slice(0, 2), ["step 1", FIRST + rounded(loss[0])]);
  mouse("mousemove", LOSS, 4);
  await settled();
  assert.equal(readout(LOSS)[0], "step 2.387"); // 4 of 1208 pixels
  mouse("mouseleave", LOSS, -20);
  await settled();
  assert.deepEqual(readout(LOSS), [`${FIRST}1.148`, `${SECOND}1.207`]);
  assert.match(valueText("BLEU"), /^newest, /);
  assert.ok(one(".u-cursor-x", chart("BLEU")).classList.contains("u-off"));
});

test("a slider tells its ends", () => {
  const ends = ["aria-valuemin", "aria-valuemax"].map((name) => slider(LOSS).getAttribute(name));
  assert.deepEqual(ends, ["1", String(STEPS)]);
});

test("the mouse reads at most three of the events next to it", async () => {
  mouse("mousemove", LOSS, leftOf(280) + 4);
  await settled();
  const marks = readout(LOSS).filter((text) => text.includes(" at step "));
  assert.deepEqual(marks, ["slow rank", "restart", "resize"].map((kind) => `${FIRST}: ${kind} at step 280`));
  assert.equal(valueText(LOSS).match(/ at step 280/g).length, 5); // the second run has one, too
  mouse("mousemove", LOSS, leftOf(280) - 6);
  await settled();
  assert.doesNotMatch(readout(LOSS).join() + valueText(LOSS), / at step /);
  mouse("mouseleave", LOSS, -20);
  await settled();
  assert.doesNotMatch(valueText(LOSS), / at step /);
});

const SPIKE_TOP = () => heights(LOSS)(loss[page.SPIKE - 1]) / 2 - frame(LOSS).top / 2;

async function clickAt(left, top) {
  mouse("click", LOSS, left, top);
  await settled();
}

test("a click opens the closest point within reach", async () => {
  await clickAt(leftOf(page.SPIKE), SPIKE_TOP());
  assert.equal(heading(), `Step 137 of ${FIRST}`);
  await closeStep();
  for (const beside of [-12, 12]) {
    await clickAt(leftOf(page.SPIKE) + beside, SPIKE_TOP());
    assert.equal(heading(), `Step 137 of ${FIRST}`);
    await closeStep();
  }
  await clickAt(leftOf(page.SPIKE) - 20, SPIKE_TOP());
  const [, step] = /^Step (\d+) /.exec(heading());
  assert.ok(Math.abs(step - 130) <= 5, step); // the spike is out of reach
  await closeStep();
});

test("a click opens the run whose line is closest", async () => {
  const y = heights(LOSS);
  const top = (value) => (y(value) - frame(LOSS).top) / 2;
  await clickAt(leftOf(60), top(curves("id-1").loss[59]));
  assert.match(heading(), new RegExp(`Step (59|60|61) of ${SECOND.replace(".", "\\.")}`));
  await closeStep();
  await clickAt(leftOf(60), top(loss[59]));
  assert.match(heading(), new RegExp(`Step (59|60|61) of ${FIRST}$`));
  await closeStep();
  await clickAt(leftOf(100), top(1) + 20); // below both lines: the second has no value there
  assert.equal(/^Step \d+ of (.*)$/.exec(heading())[1], FIRST);
  await closeStep();
});

test("a click between points that are far apart opens the nearest", async () => {
  await go("#runs=id-1&zoom=90..110");
  const range = [90, 110];
  for (const [at, step] of [[95.3, 95], [95.7, 96], [105, 105]]) {
    await clickAt(leftOf(at, range), 100);
    assert.equal(heading(), `Step ${step} of ${SECOND}`);
    await closeStep();
  }
  await clickAt(leftOf(99.9, range), 100); // step 100 has no value
  assert.match(heading(), /^Step 101 of /);
  await closeStep();
  await go("#runs=id-0,id-1&zoom=370..420");
  await clickAt(leftOf(400, [370, 420]), 170);
  assert.equal(heading(), `Step 400 of ${FIRST}`);
  await closeStep();
  await go("#runs=id-1,id-2&zoom=340..420");
  await clickAt(leftOf(379.5, [340, 380]), 5);
  assert.match(heading(), /^Step 3(79|80) of /);
  await closeStep();
});

async function drag(title, from, to) {
  mouse("mousemove", title, from);
  mouse("mousedown", title, from);
  mouse("mousemove", title, to, 60);
  const { left, width: its, height } = one(".u-select", chart(title)).style;
  const selected = [left, its, height].map(Number.parseFloat);
  mouse("mouseup", title, to, 60);
  await settled();
  return selected;
}

test("dragging over a part of a chart shows that part of all charts", async () => {
  await go(TWO);
  const [left, its, height] = await drag(LOSS, leftOf(100), leftOf(200));
  closeTo(left, leftOf(100));
  closeTo(its, leftOf(200) - leftOf(100), 1);
  assert.equal(2 * height, frame(LOSS).height); // the whole height is selected
  closeTo(zoom()[0], 100, 0.5);
  closeTo(zoom()[1], 200, 0.5);
  assert.equal(Number.parseFloat(one(".u-select", chart(LOSS)).style.width), 0);
  for (const title of [LOSS, "gradient norm"]) {
    const [line] = long(visibleOn(canvas(title)));
    closeTo(line.points.find(([x]) => x >= frame(title).left)[0], frame(title).left, 30);
    const labels = visibleOn(canvas(title)).texts.map(Number);
    assert.ok(labels.includes(150) && !labels.includes(250), labels);
  }
  assert.equal(button("Show all").hidden, false);
  click(button("Show all"));
  await settled();
  assert.equal(zoom(), undefined);
  assert.equal(button("Show all").hidden, true);
});

test("a click with an unsteady hand is no selection", async () => {
  await drag(LOSS, 100, 103);
  assert.equal(zoom(), undefined);
  await drag(LOSS, 100, 104);
  assert.ok(zoom());
  tell(page.plotOf(LOSS), "dblclick", { clientX: 500, clientY: 100, button: 0 });
  await settled();
  assert.equal(zoom(), undefined);
  mouse("mouseleave", LOSS, -20);
});

const key = async (name, given, title = LOSS) => {
  const isOpen = press(slider(title), name, given);
  await settled();
  return !isOpen; // true if the page has used the key
};
const place = (title = LOSS) => Number(/^step ([\d,.]+)/.exec(valueText(title))?.[1].replace(",", ""));

test("arrow keys move from point to point, and stay at the ends", async () => {
  await go(TWO);
  assert.ok(await key("Home"));
  assert.equal(valueText(LOSS), `step 1, ${FIRST} ${rounded(loss[0])}, ${SECOND} ${rounded(curves("id-1").loss[0])}`);
  const cursor = one(".u-cursor-y", chart(LOSS)).style.transform;
  closeTo(Number(/, ?([\d.]+)px/.exec(cursor)[1]), (heights(LOSS)(loss[0]) - frame(LOSS).top) / 2, 1);
  const moves = [["ArrowLeft", 1], ["ArrowRight", 2], ["ArrowRight", 3], ["ArrowLeft", 2], ["PageDown", 23],
    ["PageDown", 44], ["PageUp", 23], ["PageUp", 2], ["PageUp", 1], ["End", STEPS],
    ["ArrowRight", STEPS], ["ArrowLeft", STEPS - 1],
    ["PageDown", STEPS]];
  for (const [name, step] of moves) { // a page is a twentieth of the points
    await key(name);
    assert.equal(place(), step, name);
  }
  await key("Home", {}, "BLEU");
  assert.equal(place("BLEU"), 75);
  assert.equal(place(), 75); // all charts follow
  await key("PageDown", {}, "BLEU");
  assert.equal(place("BLEU"), 150);
});

test("Home goes to the first point that has a place on the axis", async () => {
  await go("#runs=id-1&x=hours"); // its first line has no time
  await key("Home");
  assert.match(valueText(LOSS), new RegExp(`^hours .*${rounded(curves("id-1").loss[1])}`));
  slider(LOSS).blur();
  await go(TWO);
});

test("the first arrow key begins at the newest point", async () => {
  slider("BLEU").blur();
  await settled();
  assert.match(valueText("BLEU"), /^newest/);
  await key("ArrowLeft", {}, "speed");
  assert.equal(place("speed"), STEPS - 1);
});

test("up and down change the line, and Enter opens its step", async () => {
  slider("speed").blur();
  await go("#runs=id-0,id-1,id-2");
  await key("Home");
  const opens = async () => {
    await key("Enter");
    const found = /^Step (\d+) of (.*)$/.exec(heading()).slice(1);
    await closeStep();
    return found;
  };
  const odd = page.runs[2].name;
  assert.deepEqual(await opens(), ["1", FIRST]);
  await key("ArrowDown");
  assert.deepEqual(await opens(), ["1", SECOND]);
  await key("ArrowDown");
  assert.deepEqual(await opens(), ["301", odd]); // its first point
  await key("ArrowDown");
  assert.deepEqual(await opens(), ["301", FIRST]);
  await key("ArrowUp");
  assert.deepEqual(await opens(), ["301", odd]);
  await key("ArrowUp");
  await key("End");
  assert.deepEqual(await opens(), ["380", SECOND]);
  await key("ArrowDown");
  await go("#runs=id-0,id-1"); // the chosen line is gone
  await key("Home");
  assert.deepEqual(await opens(), ["1", SECOND]);
  await key("ArrowUp");
  await key("ArrowUp");
  assert.deepEqual(await opens(), ["1", FIRST]);
});

test("focus returns to the chart when its step is closed", async () => {
  await go(TWO);
  await key("Enter");
  assert.ok(heading());
  await closeStep();
  assert.ok(document.activeElement === slider(LOSS));
});

test("a point without a value can be passed, and the cursor leaves the line there", async () => {
  await go("#runs=id-1");
  await key("Home");
  for (let n = 0; n < 5; n++) await key("PageDown"); // 19 points each
  for (let n = 0; n < 4; n++) await key("ArrowRight");
  assert.equal(place(), 100);
  assert.ok(one(".u-cursor-y", chart(LOSS)).classList.contains("u-off"));
  await key("ArrowRight");
  assert.equal(place(), 101);
});

test("plus and minus zoom around the point, shift and an arrow move the visible part", async () => {
  await go(`${TWO}&zoom=100..300`);
  await key("Home");
  for (let n = 0; n < 7; n++) await key("PageDown"); // to step 148
  assert.equal(place(), 148);
  await key("+");
  assert.deepEqual(zoom(), [124, 224]);
  await key("-");
  assert.deepEqual(zoom(), [100, 300]);
  await key("=");
  assert.deepEqual(zoom(), [124, 224]);
  await key("ArrowRight", { shiftKey: true });
  assert.deepEqual(zoom(), [149, 249]);
  await key("ArrowLeft", { shiftKey: true });
  assert.deepEqual(zoom(), [124, 224]);
  assert.equal(place(), 148); // the point stays where it was
  await key("ArrowRight");
  assert.equal(place(), 149);
  await key("Escape");
  assert.equal(zoom(), undefined);
  await key("Home");
  await key("+");
  assert.deepEqual(zoom(), [1, 210.5]);
  await key("0");
  assert.equal(zoom(), undefined);
});

test("the visible part stays within the curves", async () => {
  await go(`${TWO}&zoom=10..110`);
  await key("ArrowLeft", { shiftKey: true });
  assert.deepEqual(zoom(), [1, 101]);
  await go(`${TWO}&zoom=315..415`);
  await key("ArrowRight", { shiftKey: true });
  assert.deepEqual(zoom(), [320, 420]);
  await key("-");
  assert.ok(zoom()[1] - zoom()[0] <= 200 && zoom()[0] >= 1 && zoom()[1] <= STEPS);
  await key("-");
  await key("-");
  assert.equal(zoom(), undefined); // all is visible
  await key("Home");
  for (let n = 0; n < 30; n++) await key("+");
  assert.ok(zoom()[1] - zoom()[0] > 0); // even when zoomed in very far
  await key("Escape");
});

test("keys of the browser and other keys are left alone", async () => {
  await key("Home");
  for (const modifier of ["altKey", "ctrlKey", "metaKey"]) {
    assert.equal(await key("ArrowRight", { [modifier]: true }), false);
  }
  assert.equal(await key("Tab"), false);
  assert.equal(place(), 1);
  assert.equal(await key("ArrowRight"), true);
  slider(LOSS).blur();
});

const numbers = (title = LOSS) => one("details.numbers", chart(title));

test("the numbers of a chart are a table of at most 60 of its points", async () => {
  await go("#runs=id-0,id-1,id-2");
  assert.equal(numbers().open, false);
  click(one("summary", numbers()));
  const rows = page.rowsOf(numbers());
  assert.deepEqual(texts("thead th", numbers()), ["step", FIRST, SECOND, THIRD]);
  assert.equal(rows.length, 60);
  const steps = rows.map(([step]) => Number(step));
  assert.deepEqual([steps[0], steps.at(-1)], [1, STEPS]);
  assert.ok(steps.slice(1).every((step, n) => [7, 8].includes(step - steps[n])));
  for (const [step, ...values] of rows) {
    const expected = ["id-0", "id-1", "id-2"].map((id) => {
      const at = curves(id).step.indexOf(Number(step));
      return at < 0 ? "" : curves(id).loss[at] === null ? "–" : rounded(curves(id).loss[at]);
    });
    assert.deepEqual(values, expected, step);
  }
});

test("the numbers are those of the visible part, with both ends", async () => {
  await go("#runs=id-0,id-1,id-2&zoom=300..341");
  const rows = page.rowsOf(numbers());
  assert.deepEqual(rows.map(([step]) => Number(step)), Array.from({ length: 42 }, (_, n) => 300 + n));
  assert.deepEqual(rows.map((row) => row[3] !== ""), rows.map(([step]) => step > 300 && step < 341));
  await go("#runs=id-0,id-1&zoom=379..381");
  assert.deepEqual(page.rowsOf(numbers()).map((row) => row[2] !== ""), [true, true, false]);
  click(one("summary", numbers()));
});

test("a logarithmic scale is one chart's, and stays in the address", async () => {
  await go(TWO);
  const log = () => labelled(`logarithmic scale of ${LOSS}`);
  assert.equal(log().getAttribute("aria-pressed"), "false");
  click(log());
  await settled();
  assert.equal(log().getAttribute("aria-pressed"), "true");
  assert.match(location.hash, /log=loss/);
  const [line] = long(visibleOn(canvas()));
  const [top, middle, bottom] = [0, 99, 419].map((n) => line.points[n][1]);
  const share = (middle - top) / (bottom - top);
  const expected = Math.log(loss[0] / loss[99]) / Math.log(loss[0] / loss[419]);
  closeTo(share, expected, 0.02);
  assert.equal(labelled("logarithmic scale of BLEU").getAttribute("aria-pressed"), "false");
  click(log());
  await settled();
  assert.equal(log().getAttribute("aria-pressed"), "false");
  const [again] = long(visibleOn(canvas()));
  closeTo((again.points[99][1] - again.points[0][1]) / (again.points[419][1] - again.points[0][1]),
    (loss[0] - loss[99]) / (loss[0] - loss[419]), 0.02);
});

const smooth = () => one("input[type=range]", one(".curves"));

test("smoothed values are drawn over the faint raw ones", async () => {
  await go(TWO);
  assert.equal(textOf(one(".curves output")), "0.00");
  smooth().value = "0.6";
  tell(smooth(), "input");
  await settled();
  assert.match(location.hash, /smooth=0\.6/);
  assert.equal(textOf(one(".curves output")), "0.60");
  const lines = long(visibleOn(canvas()));
  const [raw, main] = lines;
  assert.equal(lines.length, 4);
  assert.equal(raw.colour, `${main.colour}55`);
  assert.ok(raw.width < main.width);
  assert.deepEqual([raw.points.length, main.points.length], [STEPS, STEPS]);
  const y = heights(LOSS);
  let [sum, weights] = [0, 0];
  loss.forEach((value, n) => {
    [sum, weights] = [0.6 * sum + 0.4 * value, 0.6 * weights + 0.4];
    closeTo(main.points[n][1], y(sum / weights), 2);
    closeTo(raw.points[n][1], y(value), 2);
  });
  assert.equal(readout(LOSS)[0], FIRST + rounded(sum / weights));
  assert.ok(visibleOn(canvas()).areas.every(({ dots }) => dots.length === 0)); // neither has dots
});

test("a click on the raw point of a smoothed curve opens it", async () => {
  await clickAt(leftOf(page.SPIKE), SPIKE_TOP());
  assert.equal(heading(), `Step 137 of ${FIRST}`);
  await closeStep();
});

test("whole numbers are not smoothed", async () => {
  await go(`${TWO}&smooth=0.6&charts=world_size`);
  for (const { target, tell: show } of seen) if (target.isConnected) show(true);
  await settled();
  assert.deepEqual(texts("h3", one(".charts")), ["ranks"]);
  mouse("mousemove", "ranks", leftOf2("ranks", 200));
  await settled();
  assert.equal(readout("ranks")[1], `${FIRST}3`);
  await go(`${TWO}&charts=loss,score.bleu,grad_norm`);
  smooth().value = "0";
  tell(smooth(), "input");
  await settled();
});

const leftOf2 = (title, step) => ((step - 1) / 419) * frame(title).width / 2;

test("the axis is steps, data, hours, or effective hours", async () => {
  await go(`${TWO}&zoom=100..200&charts=loss,score.bleu,grad_norm`);
  const axis = one(".curves select");
  assert.deepEqual(texts("option", axis), ["by step", "by data so far", "by hours", "by effective hours"]);
  const units = { tokens: ["data so far", "target_tokens_seen", 1], hours: ["hours", "wall_seconds", 3600],
    effective: ["effective hours", "counted_seconds", 3600] };
  for (const [value, [name, column, per]] of Object.entries(units)) {
    fill(axis, value);
    await settled();
    assert.equal(zoom(), undefined); // its numbers were those of another axis
    assert.match(location.hash, new RegExp(`x=${value}`));
    const at = curves("id-0")[column].map((its) => its / per);
    const others = curves("id-1")[column].filter((its) => its !== null).map((its) => its / per);
    const [low, high] = [Math.min(at[0], others[0]), Math.max(at.at(-1), others.at(-1))];
    const [line, second] = long(visibleOn(canvas()));
    line.points.forEach(([left], n) => closeTo(left,
      frame(LOSS).left + frame(LOSS).width * (at[n] - low) / (high - low)));
    assert.equal(second.points.length, value === "hours" ? 377 : 379); // without those of unknown time
    await key("Home");
    assert.match(valueText(LOSS), new RegExp(`^${name} `));
    const marks = visibleOn(canvas()).lines.filter(({ alpha }) => alpha < 1).map(({ points: [[left]] }) => left);
    closeTo(marks[0], frame(LOSS).left + frame(LOSS).width * (at[116] - low) / (high - low), 1);
    await key("Enter");
    assert.match(heading(), /^Step 1 of /);
    await closeStep();
    slider(LOSS).blur();
  }
  fill(axis, "step");
  await settled();
  assert.doesNotMatch(location.hash, /x=/);
});

const box = (title) => all(".curves .choices label").find((each) => textOf(each).replace(/ validation$/, "") === title);

test("charts are chosen in a menu", async () => {
  await go(TWO);
  fill(one(".curves select"), "step");
  await go(`${TWO}&charts=loss`);
  assert.deepEqual(texts("h3", one(".charts")), [LOSS]);
  click(one("input", box("BLEU")));
  await settled();
  assert.deepEqual(texts("h3", one(".charts")), [LOSS, "BLEU"]);
  assert.equal(textOf(box("BLEU")), "BLEU validation");
  assert.equal(textOf(box("MFU")), "MFU");
  click(one("input", box(LOSS)));
  await settled();
  assert.deepEqual(texts("h3", one(".charts")), ["BLEU"]);
  assert.deepEqual(all(".curves .choices input").filter(({ checked }) => checked).map(({ value }) => value),
    ["score.bleu"]);
  click(one("input", box(LOSS)));
  await settled();
  assert.deepEqual(texts("h3", one(".charts")), [LOSS, "BLEU"]);
});

test("a change of the colours draws the charts again", async () => {
  const before = canvas();
  click(document.getElementById("theme"));
  await settled();
  assert.ok(!before.isConnected && canvas());
});
