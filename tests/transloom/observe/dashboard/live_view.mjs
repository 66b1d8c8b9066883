// The page of a live dashboard: what it asks the server, what it hears, and inspections of steps.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, tell, textOf } from "../../../support/page_in_node.mjs";
import * as page from "./dashboard_page.mjs";
import { all, answers, button, chart, frame, go, mouse, one, pass, readout, region, rowsOf, runs, said,
  settled, slider, texts,
  visibleOn } from "./dashboard_page.mjs";

const LOSS = "training loss";
const [FIRST, SECOND] = runs.map(({ name }) => name);
const whole = structuredClone(answers["/api/runs/id-0/curves"]);
const { columns } = whole;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// The curves of the first run with a point for each four steps, as the server thins them.
function thinned() {
  const made = Object.fromEntries(Object.entries(columns).map(([name, values]) => (
    [name, values.filter((_, n) => n % 4 === 3)])));
  const groups = made.step.map((step) => columns.loss.slice(step - 4, step));
  return { ...whole, thinned: true, columns: { ...made, loss: groups.map(mean),
    loss_min: groups.map((group) => Math.min(...group)), loss_max: groups.map((group) => Math.max(...group)) } };
}

function partOf(first, last) {
  return { ...whole, columns: Object.fromEntries(Object.entries(columns).map(([name, values]) => (
    [name, values.slice(first - 1, last)]))) };
}

answers["/api/runs/id-0/curves"] = thinned();
runs[1].standing.smooths_labels = false;

const asked = []; // the paths that the page has asked for
const posted = [];
const special = new Map(); // by path: {status, text}, or an error
const held = new Map(); // by path: what lets its response go
async function respond(path, options) {
  asked.push(path);
  if (options?.method) posted.push([options.method, path, options.headers["Content-Type"], JSON.parse(options.body)]);
  await held.get(path)?.promise;
  const given = special.get(path);
  if (given instanceof Error) throw given;
  const range = /^api\/runs\/id-0\/curves\?points=2000&from=(\d+)&to=(\d+)$/.exec(path);
  const found = range ? partOf(Number(range[1]), Number(range[2])) : structuredClone(answers[`/${path.split("?")[0]}`]);
  const missing = { status: 404, text: JSON.stringify({ problem: `no ${path}` }) };
  const { status = 200, text } = given ?? (found === undefined ? missing : { text: JSON.stringify(found) });
  return { ok: status < 400, status, text: async () => text };
}

const sources = [];
class Source extends EventTarget {
  static CLOSED = 2;
  readyState = 1;
  constructor(path) {
    super();
    this.path = path;
    sources.push(this);
  }
  close() { this.readyState = Source.CLOSED; }
}
const NativeEvent = Event; // before the page has its own
async function hear(kind, data) {
  const event = new NativeEvent(kind);
  event.data = JSON.stringify(data);
  sources.at(-1).dispatchEvent(event);
  await settled();
}

let now = 1_795_300_000_000;
Date.now = () => now;

page.openLive({ answers: respond, EventSource: Source });
await settled();
const canvas = (title = LOSS) => one("canvas", chart(title));
const dialog = () => one("dialog");
const heading = () => dialog().open && textOf(one("h2", dialog()));
const state = () => textOf(one("[role=status]", dialog()));
const long = () => visibleOn(canvas()).lines.filter(({ points }) => points.length > 40);
const row = (name) => all("table.runs tbody tr").find((each) => textOf(one("td.name", each)) === name);
const since = (begun) => asked.slice(begun).sort();
const steps = (first, last, more = {}) => ({ id: "id-0", validations: [], events: [],
  columns: { step: Array.from({ length: last - first + 1 }, (_, n) => first + n),
    loss: Array(last - first + 1).fill(0.5) }, ...more });
async function close() {
  click(button("Close", dialog()));
  await settled();
}

test("a live page asks for each thing once, and follows the server", () => {
  assert.equal(document.getElementById("link").className, "following");
  assert.equal(textOf(document.getElementById("link")), "live");
  const ids = ["id-0", "id-1", "id-2"];
  assert.deepEqual([...asked].sort(), ["api/facts", "api/runs",
    ...ids.flatMap((id) => [`api/runs/${id}`, `api/runs/${id}/curves?points=2000`])].sort());
  assert.deepEqual(sources.map(({ path }) => path), ["api/follow"]);
});

test("a thinned curve says how many steps its points are, and has a band of their values", () => {
  assert.match(said(), /up to 4 steps.*Zoom in/);
  const [line] = long();
  assert.equal(line.points.length, 105);
  const bands = visibleOn(canvas()).areas.filter(({ colour }) => colour === `${line.colour}30`);
  assert.equal(bands.length, 1);
  const { loss, loss_min: low, loss_max: high } = answers["/api/runs/id-0/curves"].columns;
  const [[, from], [, to]] = [line.points[0], line.points.at(-1)];
  const y = (value) => from + (value - loss[0]) * (to - from) / (loss.at(-1) - loss[0]);
  const leads = (points, values) => line.points.every(([left], n) => (
    points.some(([x, top]) => Math.abs(x - left) < 1 && Math.abs(top - y(values[n])) < 3)));
  assert.ok(leads(bands[0].points, high), "the band begins at the highest values");
  assert.ok(bands[0].clips.some(({ points }) => leads(points, low)), "the band ends at the lowest values");
  assert.equal(visibleOn(canvas()).areas.filter(({ dots }) => dots.length).length, 0);
  const strokes = visibleOn(canvas()).lines
    .filter(({ colour, points }) => points.length > 40 && colour === "transparent");
  assert.equal(strokes.filter(({ width }) => width > 0).length, 0);
});

test("the computing of ranks has a band from the fastest to the slowest", async () => {
  await go("#runs=id-1&charts=compute_seconds_median,loss");
  const shown = visibleOn(canvas("computing"));
  assert.equal(shown.areas.filter(({ colour }) => colour.endsWith("30")).length, 1);
  // each step is a point
  assert.equal(visibleOn(canvas()).areas.filter(({ colour }) => colour.endsWith("30")).length, 0);
  assert.equal(said(), "");
  await go("#runs=id-0&charts=grad_norm");
  const bands = visibleOn(canvas("gradient norm")).areas.filter(({ colour }) => colour.endsWith("30"));
  assert.equal(bands.length, 1);
  const [mean] = visibleOn(canvas("gradient norm")).lines.filter(({ points }) => points.length === 105);
  assert.ok(bands[0].clips.some(({ points }) => mean.points
    .every((at) => points.some((its) => its.join() === at.join()))));
});

test("a part of a thinned curve is asked for step by step, once", async () => {
  await go("#runs=id-0&charts=loss");
  const begun = asked.length;
  await go("#runs=id-0&charts=loss&zoom=100.2..199.7");
  assert.deepEqual(since(begun), ["api/runs/id-0/curves?points=2000&from=100&to=200"]);
  assert.equal(long()[0].points.length, 101);
  assert.equal(said(), "");
  await go("#runs=id-0&charts=loss&zoom=100.2..199.7&smooth=0.1");
  assert.equal(since(begun).length, 1);
  await go("#runs=id-0&charts=loss&zoom=-5..20");
  assert.match(asked.at(-1), /&from=1&to=20$/);
  const path = "api/runs/id-0/curves?points=2000&from=30&to=90";
  special.set(path, new Error("refused"));
  await go("#runs=id-0&charts=loss&zoom=30..90");
  assert.ok(asked.includes(path));
  // still thinned
  assert.ok(visibleOn(canvas()).lines
    .some(({ colour, points }) => colour.startsWith("var(--run") && points.length > 10));
});

test("the click on a point of several steps opens the one with the largest value", async () => {
  await go("#runs=id-0&charts=loss,learning_rate,step_seconds");
  const width = frame(LOSS).width / devicePixelRatio;
  const top = (long()[0].points[34][1] - frame(LOSS).top) / devicePixelRatio;
  const left = (step) => width * (step - 4) / 416;
  const begun = asked.length;
  mouse("click", LOSS, left(140), top);
  await settled();
  assert.equal(heading(), `Step 137 of ${FIRST}`);
  assert.match(asked[begun], /&from=137&to=143$/); // to the next point
  await close();
  const rate = visibleOn(canvas("learning rate")).lines.find(({ points }) => points.length > 40).points[34][1];
  mouse("click", "learning rate", left(140), (rate - frame("learning rate").top) / devicePixelRatio);
  await settled();
  assert.equal(heading(), `Step 140 of ${FIRST}`); // a schedule has no extremes
  await close();
  const slow = visibleOn(canvas("seconds per step")).lines.find(({ points }) => points.length > 40).points[34][1];
  mouse("click", "seconds per step", left(140), (slow - frame("seconds per step").top) / devicePixelRatio);
  await settled();
  const range = Array.from({ length: 7 }, (_, n) => 137 + n);
  const slowest = range.toSorted((a, b) => columns.step_seconds[b - 1] - columns.step_seconds[a - 1])[0];
  assert.equal(heading(), `Step ${slowest} of ${FIRST}`);
  await close();
});

test("new steps are drawn when the page hears of them", async () => {
  await go("#runs=id-0&charts=loss,score.bleu");
  const begun = asked.length;
  await hear("steps", steps(421, 422));
  assert.deepEqual(readout(LOSS), [`${FIRST}0.5`]);
  assert.equal(slider(LOSS).getAttribute("aria-valuenow"), "422");
  assert.equal(long()[0].points.length, 107);
  assert.deepEqual(since(begun), []); // which needs no question
  await hear("steps", { ...steps(422, 422), columns: { step: [422], loss: [9] } });
  assert.deepEqual(readout(LOSS), [`${FIRST}0.5`]); // a step that is known
  assert.equal(long()[0].points.length, 107);
});

test("new steps are also drawn in a visible part that reaches the newest one", async () => {
  await go("#runs=id-0&charts=loss&zoom=400..440");
  columns.loss.push(0.5, 0.5);
  const before = visibleOn(canvas()).lines.map(({ points }) => points.length);
  await hear("steps", steps(423, 424));
  assert.equal(slider(LOSS).getAttribute("aria-valuenow"), "424");
  assert.ok(before.length > 0);
});

test("new validations and events are shown once, and the run's details are asked again", async () => {
  await go("#runs=id-0&charts=loss,score.bleu");
  const count = () => answers["/api/runs/id-0"].validations.length;
  const scores = { bleu: { value: 61.25 }, loss: { value: 1 } };
  const begun = asked.length;
  special.set("api/runs/id-0", new Error("busy"));
  await hear("steps", steps(425, 425, { validations: [{ step: 425, scores }],
    events: [{ step: 425, event: "skipped", words: "skipped" }] }));
  assert.deepEqual(since(begun), ["api/runs/id-0"]);
  assert.deepEqual(readout("BLEU"), [`${FIRST}61.25`]);
  assert.equal(visibleOn(canvas("BLEU")).areas.find(({ dots }) => dots.length).dots.length, count() + 1);
  assert.equal(rowsOf(region("List of events"))[0].join(), `425,${FIRST},skip,skipped`);
  const events = rowsOf(region("List of events")).length;
  await hear("steps", steps(425, 425, { events: [{ step: 425, event: "skipped", words: "skipped" },
    { step: 425, event: "skipped", words: "other" }] }));
  assert.equal(rowsOf(region("List of events")).length, events + 1);
  assert.equal(since(begun).length, 1); // no validation
  special.delete("api/runs/id-0");
  Object.assign(answers["/api/runs/id-0"], { validations: [{ step: 75, scores: { bleu: { value: 7 } } }] });
  await hear("steps", steps(426, 426, { validations: [{ step: 426, scores }] }));
  assert.deepEqual(readout("BLEU"), [`${FIRST}7`]); // the response replaces what was known
});

test("a row changes in its place, and a new run is added", async () => {
  await go("#runs=id-0");
  let begun = asked.length;
  const changed = structuredClone(runs[0]);
  changed.standing.step = 432;
  await hear("runs", { runs: [changed, { ...structuredClone(runs[1]), id: "new", name: "new run",
    standing: { ...runs[1].standing, name: "new run" } }] });
  assert.deepEqual(texts("td.name"), [...runs.map(({ name }) => name), "new run"]);
  assert.match(textOf(row(FIRST)), /432 of 600/);
  assert.equal(document.title, "4 runs · transloom");
  assert.deepEqual(since(begun), []); // as its state and its checkpoint are the same
  changed.standing.checkpoint = "runs/x/checkpoints/step-00000432";
  await hear("runs", { runs: [changed] });
  assert.deepEqual(since(begun), ["api/runs/id-0"]);
  begun = asked.length;
  changed.standing.state = "finished";
  await hear("runs", { runs: [changed] });
  assert.deepEqual(since(begun), ["api/runs/id-0"]);
  assert.match(textOf(row(FIRST)), /finished/);
  await hear("runs", { runs: [{ ...changed, standing: { ...changed.standing, step: 433 } }] });
  assert.deepEqual(since(begun), ["api/runs/id-0"]);
});

test("a replaced record is read again", async () => {
  const begun = asked.length;
  await hear("curves", { id: "id-0" });
  assert.deepEqual(since(begun), ["api/runs/id-0", "api/runs/id-0/curves?points=2000"]);
  assert.equal(slider(LOSS).getAttribute("aria-valuenow"), "420");
});

test("after very many new steps the curve is asked for again, thinned", async () => {
  const begun = asked.length;
  await hear("steps", steps(421, 4000));
  assert.deepEqual(since(begun), []);
  await hear("steps", steps(4001, 6400));
  assert.deepEqual(since(begun), ["api/runs/id-0/curves?points=2000"]);
});

test("a lost connection is reported, and what was missed is asked for", async () => {
  const link = document.getElementById("link");
  sources.at(-1).dispatchEvent(new NativeEvent("error"));
  await settled();
  assert.equal(link.className, "lost");
  assert.match(textOf(link), /lost/);
  pass(10_000);
  assert.equal(sources.length, 1); // the browser itself connects again
  const begun = asked.length;
  sources.at(-1).dispatchEvent(new NativeEvent("open"));
  await settled();
  assert.equal(link.className, "following");
  assert.equal(textOf(link), "live");
  const ids = ["id-0", "id-1", "id-2"];
  assert.deepEqual(since(begun), ["api/runs", ...ids.map((id) => `api/runs/${id}`),
    "api/runs/id-0/curves?points=2000"].sort());
  sources.at(-1).dispatchEvent(new NativeEvent("open")); // nothing was missed
  await settled();
  assert.equal(since(begun).length, 5);
  assert.equal(document.title, "3 runs · transloom");
});

test("after a refusal the page connects again by itself", async () => {
  sources[0].readyState = Source.CLOSED;
  sources[0].dispatchEvent(new NativeEvent("error"));
  await settled();
  pass(2500);
  assert.equal(sources.length, 1);
  pass(1000);
  assert.equal(sources.length, 2);
  sources[1].dispatchEvent(new NativeEvent("open"));
  await settled();
  assert.equal(document.getElementById("link").className, "following");
  await hear("runs", { runs: [{ ...runs[0], standing: { ...runs[0].standing, step: 99 } }] });
  assert.match(textOf(row(FIRST)), /99 of 600/);
});

test("a slow page draws at most a quarter of the time", async () => {
  let extra = 0;
  const { now: clock } = performance;
  performance.now = () => clock() + extra;
  const update = (step) => {
    const event = new NativeEvent("runs");
    event.data = JSON.stringify({ runs: [{ ...runs[0], standing: { ...runs[0].standing, step } }] });
    sources.at(-1).dispatchEvent(event);
  };
  let title = document.title;
  // 100 ms per drawing
  Object.defineProperty(document, "title", { configurable: true, get: () => title,
    set(to) { title = to; extra += 100; } });
  update(201);
  await settled();
  assert.match(textOf(row(FIRST)), /201 of 600/);
  update(202);
  pass(200);
  assert.match(textOf(row(FIRST)), /201 of 600/);
  pass(150);
  assert.match(textOf(row(FIRST)), /202 of 600/);
  delete document.title;
  performance.now = clock;
  pass(2000);
});

// Steps and inspections.

const inputs = () => all("form input", dialog());
const begin = () => one("form button", dialog());
const submit = async (first, last) => {
  [inputs()[0].value, inputs()[1].value] = [String(first), String(last)];
  tell(one("form", dialog()), "submit");
  await settled();
};
const look = (step) => ({ run: "runs/a", from_step: step, to_step: step, steps_trained: 1, replayed_from: null,
  verdict: { same: true, to_the_last_bit: true, data: "same", losses: "same", state: "same", promise: "p",
    first_difference: null },
  steps: [{ step, loss: 1, recorded_loss: 1, grad_norm: 1, recorded_grad_norm: 1, examples: [], gradient_norms: {},
    activations: {} }] });
const answerLook = (step, answer, end = step) => special.set(`api/runs/id-0/looks/${step}-${end}`,
  { text: JSON.stringify(answer) });
const answerStart = (answer) => special.set("api/runs/id-0/looks",
  answer instanceof Error ? answer : { text: JSON.stringify(answer) });

test("a step shows its record, and the steps beside it", async () => {
  await go("#runs=id-0&step=id-0@2");
  assert.equal(heading(), `Step 2 of ${FIRST}`);
  assert.ok(!one("form", dialog()).hidden);
  const value = () => texts("dd", dialog())[0];
  assert.equal(value(), `${columns.loss[1].toFixed(3)} nats per target token`);
  assert.deepEqual(inputs().map(({ value: its }) => its), ["2", "2"]);
  assert.deepEqual(inputs().map((input) => [input.min, input.hasAttribute("required")]), [["1", true], ["1", true]]);
  const move = async (label) => {
    click(button(label, dialog()));
    await settled();
    return heading().split(" ")[1];
  };
  assert.equal(await move("next step →"), "3");
  assert.equal(value(), `${columns.loss[2].toFixed(3)} nats per target token`);
  assert.match(location.hash, /step=id-0%403/);
  assert.equal(await move("← previous step"), "2");
  assert.equal(await move("← previous step"), "1");
  assert.equal(await move("← previous step"), "1");
  await close();
  assert.doesNotMatch(location.hash, /step=/);
  assert.equal(heading(), false);
});

test("a step without a record, and one that cannot be read", async () => {
  await go("#runs=id-0&step=id-0@900");
  assert.match(textOf(dialog()), /no values for this step/);
  special.set("api/runs/id-1/curves?points=2000&from=5&to=5", new Error("refused"));
  await go("#runs=id-0&step=id-1@5");
  assert.equal(heading(), `Step 5 of ${SECOND}`);
  assert.match(state(), /does not respond/);
  await go("#runs=id-0&step=id-0@117");
  assert.match(textOf(dialog()), /slot 3 of rank 1 was not finite/); // its event
  assert.equal(state(), "");
  await close();
});

test("a record that arrives late does not replace that of another step", async () => {
  const path = "api/runs/id-0/curves?points=2000&from=10&to=10";
  held.set(path, Promise.withResolvers());
  await go("#runs=id-0&step=id-0@10");
  assert.equal(texts("dd", dialog()).length, 0);
  await go("#runs=id-0&step=id-0@11");
  held.get(path).resolve();
  await settled();
  assert.equal(texts("dd", dialog())[0], `${columns.loss[10].toFixed(3)} nats per target token`);
  await close();
});

test("an inspection trains the steps again, and asks each second how far it is", async () => {
  await go("#runs=id-0&step=id-0@20");
  posted.length = 0;
  answerStart({ state: "running", message: "", look: null });
  await submit(20, 21);
  assert.deepEqual(posted, [["POST", "api/runs/id-0/looks", "application/json", { from: 20, to: 21 }]]);
  assert.match(state(), /Training/);
  assert.ok(dialog().classList.contains("busy"));
  assert.ok(!begin().disabled);
  answerLook(20, { state: "running", message: "half of it", look: null }, 21);
  const begun = asked.length;
  pass(900);
  await settled();
  assert.deepEqual(since(begun), []);
  pass(150);
  await settled();
  assert.deepEqual(since(begun), ["api/runs/id-0/looks/20-21"]);
  assert.equal(state(), "half of it");
  assert.ok(!one(".verdict", dialog()));
  answerLook(20, { state: "done", message: "", look: look(20) }, 21);
  pass(1100);
  await settled();
  assert.equal(state(), "");
  assert.ok(!dialog().classList.contains("busy"));
  assert.ok(one(".verdict.same", dialog()));
  assert.match(textOf(one(".looked", dialog())), /Training loss 1, recorded 1/);
  const ended = asked.length;
  pass(5000);
  await settled();
  assert.equal(asked.length, ended);
  await close();
});

test("an inspection that fails says why, and another can begin", async () => {
  await go("#runs=id-0&step=id-0@22");
  assert.ok(!one(".verdict", dialog())); // that of the former step
  assert.equal(state(), "");
  answerStart({ state: "failed", message: "no checkpoint", look: null });
  await submit(22, 22);
  assert.equal(state(), "no checkpoint");
  answerStart(new Error("refused"));
  await submit(22, 22);
  assert.match(state(), /does not respond/);
  assert.ok(!begin().disabled);
  answerStart({ state: "running", message: "", look: null });
  await submit(22, 22);
  answerLook(22, { state: "done", message: "", look: null });
  special.set("api/runs/id-0/looks/22-22", new Error("refused"));
  pass(1100);
  await settled();
  assert.match(state(), /does not respond/);
  await close();
});

test("while an inspection is asked for, the button waits", async () => {
  await go("#runs=id-0&step=id-0@23");
  held.set("api/runs/id-0/looks", Promise.withResolvers());
  answerStart({ state: "done", message: "", look: look(23) });
  await submit(23, 23);
  assert.ok(begin().disabled);
  assert.match(state(), /Starting/);
  await go("#runs=id-0&step=id-0@24");
  held.get("api/runs/id-0/looks").resolve();
  await settled();
  assert.ok(!begin().disabled);
  assert.ok(!one(".verdict", dialog())); // it was of another step
  assert.equal(state(), "");
  held.delete("api/runs/id-0/looks");
  held.set("api/runs/id-0/looks", Promise.withResolvers());
  answerStart(new Error("refused"));
  await submit(24, 24);
  await go("#runs=id-0&step=id-0@25");
  held.get("api/runs/id-0/looks").resolve();
  await settled();
  assert.equal(state(), "");
  held.clear();
  await close();
});

test("steps that are no range are refused", async () => {
  await go("#runs=id-0&step=id-0@30");
  posted.length = 0;
  for (const [first, last] of [[0, 5], [7, 6], ["", 6], [-1, 3]]) {
    await submit(first, last);
    assert.match(state(), /not a valid range/, `${first} to ${last}`);
  }
  assert.equal(posted.length, 0);
  answerStart({ state: "done", message: "", look: look(1) });
  await submit(1, 1);
  assert.equal(posted.length, 1);
  assert.equal(tell(one("form", dialog()), "submit"), false); // the browser does not leave the page
  await settled();
  await close();
});

test("an inspection that is known is shown at once", async () => {
  let begun = asked.length;
  await go("#runs=id-0&step=id-0@40");
  assert.ok(!since(begun).some((path) => path.includes("looks")));
  await close();
  answerLook(40, { state: "done", message: "", look: look(40) });
  await hear("looks", { id: "id-0", from: 40, to: 40, state: "done", message: "" });
  await go("#runs=id-0&step=id-0@40");
  assert.ok(one(".verdict.same", dialog()));
  await close();
  begun = asked.length;
  await go("#runs=id-0&step=id-0@41");
  assert.ok(!since(begun).some((path) => path.includes("looks")));
  await hear("looks", { id: "id-0", from: 42, to: 42, state: "failed", message: "" });
  await go("#runs=id-0&step=id-0@42"); // whose response is an error
  assert.equal(state(), "");
  held.set("api/runs/id-0/looks/40-40", Promise.withResolvers());
  await go("#runs=id-0&step=id-0@40");
  await go("#runs=id-0&step=id-0@43");
  held.get("api/runs/id-0/looks/40-40").resolve();
  await settled();
  assert.ok(!one(".verdict", dialog()));
  await close();
});

test("a closed step asks no more about its inspection", async () => {
  await go("#runs=id-0&step=id-0@50");
  answerStart({ state: "running", message: "", look: null });
  await submit(50, 50);
  await close();
  const begun = asked.length;
  pass(3000);
  await settled();
  assert.deepEqual(since(begun), []);
  await go("#runs=id-0&step=id-0@51");
  await submit(51, 51);
  await go("#runs=id-0&step=id-0@52");
  const moved = asked.length;
  pass(3000);
  await settled();
  assert.deepEqual(since(moved), []);
  await submit(52, 52);
  held.set("api/runs/id-0/looks/52-52", Promise.withResolvers());
  answerLook(52, { state: "done", message: "late", look: look(52) });
  pass(1100);
  await go("#runs=id-0&step=id-0@53");
  held.get("api/runs/id-0/looks/52-52").resolve();
  await settled();
  assert.equal(state(), "");
  await go("#runs=id-0");
  assert.equal(heading(), false);
});

// A run's page.

const part = (name) => all("main section.part").find((each) => each.getAttribute("aria-label") === name);

test("the page of a run shows how far it is read", async () => {
  const [details, curves] = ["api/runs/id-3", "api/runs/id-3/curves?points=2000"];
  for (const path of [details, curves]) held.set(path, Promise.withResolvers());
  await hear("runs", { runs: [{ ...structuredClone(runs[1]), id: "id-3" }] });
  answers["/api/runs/id-3"] = { ...structuredClone(answers["/api/runs/id-1"]), id: "id-3" };
  answers["/api/runs/id-3/curves"] = { ...whole,
    columns: Object.fromEntries(Object.keys(columns).map((name) => [name, []])) };
  await go("#run=id-3");
  const bar = one("progress");
  assert.ok(!bar.hidden && one(".run").classList.contains("unread"));
  assert.deepEqual([bar.value, bar.max], [0, 2]);
  assert.equal(textOf(one(".reading")), "Reading its curves and its folder …");
  assert.match(said(), /^Reading curves/);
  held.get(curves).resolve();
  await settled();
  assert.deepEqual([bar.value, bar.max], [1, 2]);
  assert.equal(textOf(one(".reading")), "Reading its folder …");
  assert.ok(one(".run").classList.contains("unread"));
  assert.match(said(), /No step has been recorded/);
  held.get(details).resolve();
  await settled();
  assert.ok(bar.hidden && one(".reading p").hidden && !one(".run").classList.contains("unread"));
  held.clear();
});

test("a problem of the server is shown as it says it", async () => {
  const cases = [[{ status: 500, text: '{"problem": "the disk is gone"}' }, "the disk is gone"],
    [{ status: 502, text: "bad gateway" }, "502: bad gateway"],
    [{ status: 200, text: "<html>" }, "The response to /api/runs/fail-2 is not JSON."]];
  for (const [n, [response, message]] of cases.entries()) {
    const id = `fail-${n}`;
    special.set(`api/runs/${id}`, response);
    await hear("runs", { runs: [{ ...structuredClone(runs[1]), id }] });
    await go(`#run=${id}`);
    assert.equal(textOf(one(".headline")), message);
    assert.ok(one(".run").classList.contains("unread"));
    assert.match(said(), /^no api\/runs\/fail-\d\/curves/);
  }
  const curves = { ...structuredClone(runs[1]), id: "fail-9" };
  answers["/api/runs/fail-9"] = { ...structuredClone(answers["/api/runs/id-1"]), id: "fail-9" };
  await hear("runs", { runs: [curves] });
  await go("#run=fail-9");
  assert.match(said(), /^no api\/runs\/fail-9\/curves/);
});

test("the usage of nodes is asked for at each visit, and then each half minute", async () => {
  const count = () => asked.filter((path) => path === "api/runs/id-0/nodes").length;
  const lapses = () => asked.filter((path) => path === "api/runs/id-0/time-lapse").length;
  await go("#run=id-0");
  assert.equal(count(), 1);
  assert.equal(lapses(), 1);
  now += 29_000;
  await hear("steps", steps(421, 421));
  assert.equal(count(), 1);
  now += 2000;
  await hear("steps", steps(422, 422));
  assert.equal(count(), 2);
  await hear("steps", steps(423, 423));
  assert.equal(count(), 2);
  await go("#run=id-1");
  await go("#run=id-0");
  assert.equal(count(), 3);
  const reached = (step) => hear("runs", { runs: [{ ...runs[0], standing: { ...runs[0].standing, step } }] });
  await reached(420);
  const before = lapses();
  await reached(421);
  assert.equal(lapses(), before); // about the same translation
  await reached(840);
  assert.equal(lapses(), before + 1);
  assert.match(textOf(part("Time-lapse")), /no api\/runs\/id-0\/time-lapse/);
});

test("a time-lapse that arrives late is not shown on the page of another run", async () => {
  held.set("api/runs/id-1/time-lapse", Promise.withResolvers());
  answers["/api/runs/id-1/time-lapse"] = { problems: ["of the second"], sentences: {} };
  await go("#run=id-1");
  await go("#run=id-2");
  held.get("api/runs/id-1/time-lapse").resolve();
  await settled();
  assert.doesNotMatch(textOf(part("Time-lapse")), /of the second/);
  held.clear();
});

test("a part that has changed is made again, and stays where it was scrolled to", async () => {
  await go("#run=id-1");
  const box = () => region("Samples of the newest validation");
  const other = one("table", part("Recipe"));
  box().scrollTop = 33;
  const before = box();
  answers["/api/runs/id-1"].samples.push({ source: "new", reference: "r", translation: "t" });
  await hear("steps", { ...steps(400, 400), id: "id-1", validations: [{ step: 400, scores: {} }] });
  assert.ok(box() !== before);
  assert.equal(rowsOf(box()).at(-1)[0], "new");
  assert.equal(box().scrollTop, 33);
  assert.ok(one("table", part("Recipe")) === other);
});

test("a page that is left closes its connection", () => {
  dispatchEvent(new Event("pagehide"));
  assert.equal(sources.at(-1).readyState, Source.CLOSED);
});
