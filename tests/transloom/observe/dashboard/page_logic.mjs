// What of the dashboard's page can be tested without a browser: argument 1 is the page's folder.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const module = (name) => import(pathToFileURL(`${process.argv[2]}/${name}`));
const series = await module("series.js");
const filters = await module("filters.js");
const state = await module("view_state.js");
const words = await module("words.js");
const { visible } = await module("drawing/text.js");
const { COLOURS, Colours, lineOf } = await module("colours.js");
const { FrozenAnswers } = await module("answers.js");
const { Store } = await module("store.js");
const { charts, measures, shown } = await module("measures.js");
const { lossesText } = await module("look.js");
const { Facts, currentText, stepText } = await module("facts.js");
const served = JSON.parse(readFileSync(process.argv[4], "utf8"));
const facts = new Facts(served);

const columns = () => ({
  step: [1, 2, 3, 5], time: [100, 460, 820, 1540], target_tokens_seen: [10, 20, 30, 50],
  wall_seconds: [360, 720, 1080, 1800], counted_seconds: [36, 72, 108, 180],
  loss: [4, 3, null, 1], loss_max: [5, 4, null, 2],
});

test("an axis is a column, in hours", () => {
  assert.deepEqual(series.xs(columns(), "step"), [1, 2, 3, 5]);
  assert.deepEqual(series.xs(columns(), "tokens"), [10, 20, 30, 50]);
  assert.deepEqual(series.xs(columns(), "hours"), [0.1, 0.2, 0.3, 0.5]);
  assert.deepEqual(series.xs(columns(), "effective"), [0.01, 0.02, 0.03, 0.05]);
});

test("a record that did not count hours has its clock", () => {
  const old = { ...columns(), wall_seconds: [null, null, null, null] };
  assert.deepEqual(series.xs(old, "hours"), [0, 0.1, 0.2, 0.4]);
});

test("a step has its place on each axis, and a place its step", () => {
  for (const axis of ["step", "tokens", "hours", "effective"]) {
    for (const step of [1, 2, 3, 4, 5]) {
      assert.equal(series.stepAtX(columns(), axis, series.xAtStep(columns(), axis, step)), step, axis);
    }
  }
  assert.equal(series.xAtStep(columns(), "tokens", 4), 40);
  assert.equal(series.xAtStep(columns(), "tokens", 99), 50);
  assert.equal(series.xAtStep({ ...columns(), step: [] }, "tokens", 4), null);
});

test("smoothing keeps a constant and what is unknown, and begins at the first value", () => {
  assert.deepEqual(series.smoothed([2, 2, null, 2], 0.9).map((v) => v && Math.round(v * 1e9) / 1e9), [2, 2, null, 2]);
  const [first, second] = series.smoothed([4, 0], 0.5);
  assert.equal(first, 4);
  assert.ok(Math.abs(second - 4 / 3) < 1e-12);
  assert.deepEqual(series.smoothed([4, null], 0), [4, null]);
});

test("a logarithm is of what is above 0", () => {
  assert.deepEqual(series.positive([1, 0, -1, null]), [1, null, null, null]);
});

test("newer steps are appended once", () => {
  const known = columns();
  const newer = { step: [5, 6, 7], loss: [9, 0.9, 0.8], target_tokens_seen: [50, 60, 70] };
  assert.equal(series.append(known, newer), 2);
  assert.deepEqual(known.step, [1, 2, 3, 5, 6, 7]);
  assert.deepEqual(known.loss, [4, 3, null, 1, 0.9, 0.8]);
  assert.deepEqual(known.loss_max, [5, 4, null, 2, 0.9, 0.8]);
  assert.deepEqual(known.wall_seconds.slice(-2), [null, null]);
  assert.equal(series.append(known, newer), 0);
});

test("places in growing lists", () => {
  assert.equal(series.firstFrom([1, 3, 5], 3), 1);
  assert.equal(series.firstFrom([1, 3, 5], 6), 3);
  assert.equal(series.nearest([1, 3, 6], 4.4), 1);
  assert.equal(series.nearest([1, 3, 6], 4.6), 2);
  assert.deepEqual(series.readable([1, 2, 3, 4, 5], 3), [1, 3, 5]);
  assert.deepEqual(series.extent([null, 3, 1, NaN]), [1, 3]);
  assert.equal(series.extent([null]), null);
});

const row = (name, settings, standing = {}) => (
  { id: name, standing: { name, state: "finished", step: 10, scores: {}, best: {}, settings, ...standing } });
const rows = [
  row("a", { seed: 1, "model.width": 128, "model.norm": "post" }, { scores: { bleu: { value: 30, more_is_better: true } } }),
  row("b", { seed: 2, "model.width": 256, "model.norm": "post" }, { state: "training", numbers: { target_tokens_per_second: 900, tflops_per_second: 2.5, mfu: 0.4 } }),
  row("long name", { seed: 10, "model.width": 256, "model.norm": "pre", "data.tag": null }, { scores: { bleu: { value: 4, more_is_better: true } } }),
];
const found = (text) => rows.filter((one) => filters.fits(one, filters.parseFilter(text))).map(({ id }) => id);

test("a filter asks for fields, scores, settings and words", () => {
  assert.deepEqual(found(""), ["a", "b", "long name"]);
  assert.deepEqual(found("state:train"), ["b"]);
  assert.deepEqual(found("bleu>4"), ["a"]);
  assert.deepEqual(found("bleu>=4 bleu<30"), ["long name"]);
  assert.deepEqual(found("model.width=256 seed!=2"), ["long name"]);
  assert.deepEqual(found("width=128"), ["a"]);
  assert.deepEqual(found("norm=p"), []);
  assert.deepEqual(found("norm:p"), ["a", "b", "long name"]);
  assert.deepEqual(found("target_tokens_per_second>100"), ["b"]);
  assert.deepEqual(found("tokens/s>100"), ["b"]); // the former name
  assert.deepEqual(found("tflop/s>2 mfu<0.5"), ["b"]);
  assert.deepEqual(found('"long name"'), ["long name"]);
  assert.deepEqual(found("PRE"), ["long name"]);
  assert.deepEqual(found("bleu>"), []);
  assert.deepEqual(found('"state:train"'), []);
  assert.deepEqual(filters.unknownFields(rows, filters.parseFilter("widht=1 seed=1")), ["widht"]);
});

test("rows are sorted as numbers, and unknown ones come last", () => {
  const order = (by) => filters.sorted(rows, by).map(({ id }) => id);
  assert.deepEqual(order("seed"), ["a", "b", "long name"]);
  assert.deepEqual(order("-seed"), ["long name", "b", "a"]);
  assert.deepEqual(order("bleu"), ["long name", "a", "b"]);
  assert.deepEqual(order("-bleu"), ["a", "long name", "b"]);
  assert.deepEqual(order("-name"), ["long name", "b", "a"]);
});

test("differences are those of any two", () => {
  assert.deepEqual(filters.differences(rows.slice(0, 2)).map(({ key }) => key), ["model.width", "seed"]);
  assert.deepEqual(filters.differences([rows[0], rows[0]]), []);
  assert.deepEqual(filters.differences(rows).find(({ key }) => key === "model.norm").values, ["post", "post", "pre"]);
});

test("a view goes through the address and back", () => {
  assert.equal(state.writeView(state.newView()), "");
  const view = {
    ...state.newView(), runs: ["a,b", "c&d=é", "50%"], filter: "bleu>3 x=1 & y", sort: "-bleu", columns: ["model.width"],
    x: "hours", smooth: 0.6, log: ["loss"], charts: ["loss", "score.bleu"], zoom: [0.25, 1000000],
    step: { id: "a@b", step: 57 }, run: "a b",
  };
  assert.deepEqual(state.parseView(state.writeView(view)), view);
  assert.deepEqual(state.parseView(state.writeView({ ...state.newView(), runs: [] })).runs, []);
});

test("a fragment that somebody made up is no error", () => {
  for (const text of ["#zoom=5..1", "#zoom=a..b", "#step=x", "#x=moons", "#smooth=7", "#=", "#runs=%25E0%25A4", "#step=@3"]) {
    assert.deepEqual({ ...state.parseView(text), runs: null }, state.newView(), text);
  }
});

test("numbers read well", () => {
  const cases = [[null, "–"], [0, "0"], [1234567, "1,234,567"], [0.00001234, "1.23e−5"], [-2.34567, "−2.346"],
    [0.123456, "0.1235"], [1234.5, "1,235"], [2.5e12, "2.5e12"], [3e-5, "3e−5"], [0.00075, "0.00075"], [Infinity, "∞"],
    [-0.00001, "−1e−5"], [-Infinity, "−∞"], [NaN, "–"], [12345, "12,345"], [1e9, "1e9"]];
  for (const [value, text] of cases) assert.equal(words.number(value), text);
  assert.deepEqual([0, 59, 3600, 3725, 90061, null].map(words.span), ["0 s", "59 s", "1 h", "1 h 2 min", "1 d 1 h", ""]);
  assert.deepEqual([[7, 20], [40, 20], [7, null]].map(([step, of]) => words.stepsOf(step, of)), ["7 of 20", "40 (max_steps is 20)", "7"]);
  assert.deepEqual([0, 999, 10_800_000, 2.5e12].map(words.bytes), ["0 B", "999 B", "10.8 MB", "2.5 TB"]);
  assert.deepEqual([9999, 10_000, 100_000, 1_250_000, -20_000, 0.5].map(words.short), ["9,999", "10k", "100k", "1.25M", "−20k", "0.5"]);
  assert.equal(words.scoreValue("bleu", 30.126), "30.13");
  assert.equal(words.scoreValue("loss", 1), "1.0000");
  const beams = [1, 4].map((beam_size) => words.searchLabel({ beam_size, length_penalty: 0.6 }));
  assert.deepEqual(beams, ["greedy", "beam 4, α 0.6"]);
  assert.deepEqual([words.scoreTitle("bleu", { decoding: "greedy" }), words.scoreTitle("a_b")], ["BLEU (greedy)", "a b"]);
  assert.deepEqual(["a", [1], null].map(words.settingText), ["a", "[1]", "–"]);
});

test("times are those of this machine's zone", () => {
  process.env.TZ = "Asia/Kathmandu";
  const times = [1767291299, "2026-01-01T18:15:00+00:00", "soon", null];
  assert.deepEqual(times.map(words.moment), ["2026-01-01 23:59:59", "2026-01-02 00:00:00", "soon", ""]);
});

const placesOf = (ids) => {
  const colours = new Colours();
  colours.assign(ids);
  return Object.fromEntries(ids.map((id) => [id, colours.place(id)]));
};
const ownPlace = (id) => placesOf([id])[id];

test("a run has the colour of its name, whatever is shown and in whatever order", () => {
  const ids = ["phrasebook", "seed-1", "seed-2", "~0badcafe", "漢字"];
  assert.deepEqual(placesOf(ids), placesOf(ids.toReversed()));
  const colours = new Colours();
  colours.assign(ids.slice(1)); // what was shown before changes nothing
  colours.assign(ids);
  assert.deepEqual(ids.map((id) => colours.place(id)), Object.values(placesOf(ids)));
  assert.equal(ownPlace("phrasebook"), 5); // in the next version, too
});

test("of two runs with the same colour one keeps it, and all are told apart", () => {
  const names = Array.from({ length: 30 }, (_, n) => `run-${n}`);
  const [first, second] = names.flatMap((a, n) => names.slice(n + 1)
    .filter((b) => ownPlace(a) === ownPlace(b)).map((b) => [a, b]))[0];
  const places = placesOf([first, second]);
  const kept = [first, second].filter((id) => places[id] === ownPlace(id));
  assert.equal(kept.length, 1);
  assert.ok(Object.values(places).every((place) => place < COLOURS)); // no dashes yet
  assert.equal(new Set(Object.values(placesOf(names.slice(0, COLOURS)))).size, COLOURS);
  const lines = Object.values(placesOf(names)).map((place) => JSON.stringify(lineOf(place)));
  assert.equal(new Set(lines).size, names.length);
  const owns = new Set(names.map(ownPlace));
  assert.equal(owns.size, COLOURS); // names spread over all colours
});

test("a place beyond the last colour is dashed", () => {
  assert.deepEqual(lineOf(8), { colour: "--run-0", dash: [8, 4] });
});

test("runs of one task are chosen for a start: those that train, then those with most steps", () => {
  const of = (id, task, step, state = "finished") => row(id, task ? { task } : {}, { step, state });
  const all = [of("lm", "causal_lm", 900), of("old", null, 5), of("a", "translation", 10),
    of("b", "translation", 20), of("trains", "translation", 1, "training"), of("bert", "masked_lm", 800)];
  assert.deepEqual(filters.firstChoice(all, [], 5), ["trains", "b", "a", "old"]);
  assert.deepEqual(filters.firstChoice(all, [], 2), ["trains", "b"]);
  assert.deepEqual(filters.firstChoice(all, ["lm"], 5), ["lm"]); // what is chosen stays
  assert.deepEqual(filters.firstChoice([...all, of("lm-2", "causal_lm", 1)], ["lm"], 5), ["lm", "lm-2"]);
  assert.deepEqual(filters.firstChoice([], [], 5), []);
});

test("points that no line leads to are lonely", () => {
  assert.deepEqual(series.lonely([7]), [0]);
  assert.deepEqual(series.lonely([1, 2, null, 3, null, null, 4, 5, null, 6]), [3, 9]);
  assert.deepEqual(series.lonely([1, undefined, 2, null, undefined, 3, undefined]), [5]);
  assert.deepEqual(series.lonely([null, undefined]), []);
});

test("an axis of a single place has room around it", () => {
  assert.deepEqual(series.widened([3, 3]), [2.5, 3.5]);
  assert.deepEqual(series.widened([3, 4]), [3, 4]);
  assert.equal(series.widened(null), null);
});

test("a report answers any part of a curve with the whole", async () => {
  const answers = new FrozenAnswers({ "/api/runs/a/curves": 1, "/frozen": { time: 3 } });
  assert.equal(await answers.ask("/api/runs/a/curves?points=9&from=1&to=2"), 1);
  assert.equal(answers.frozen.time, 3);
  await assert.rejects(answers.ask("/api/runs/b"), /does not include/);
});

test("charts are those for a start, or the chosen ones", () => {
  const all = measures(facts, new Map([["loss", {}], ["bleu", { decoding: "greedy" }]]), false);
  assert.deepEqual(shown(all, null).slice(0, 3).map(({ key }) => key), ["loss", "score.bleu", "grad_norm"]);
  assert.deepEqual(shown(all, ["score.loss", "goodput"]).map(({ key }) => key), ["score.loss", "goodput"]);
});

test("a smoothed loss is named so, and the NLL that compares is shown from the start", () => {
  const titles = (smoothed) => shown(measures(facts, new Map([["bleu", { decoding: "greedy" }]]), smoothed), null)
    .slice(0, 3).map(({ title }) => title);
  assert.deepEqual(titles(true), ["training NLL", "training loss (smoothed)", "BLEU (greedy)"]);
  assert.deepEqual(titles(false), ["training loss", "BLEU (greedy)", "gradient norm"]);
  assert.equal(words.searchLabel({ beam_size: 1, length_penalty: 0.6 }), "greedy");
  assert.equal(words.searchLabel({ beam_size: 4, length_penalty: 0.6 }), "beam 4, α 0.6");
});

test("losses that are held to rounding are no error, and are not called equal bits", () => {
  const found = { losses: "same", to_the_last_bit: false, largest_difference: 0.0023 };
  assert.equal(lossesText(found), "the same up to rounding");
  assert.match(lossesText({ ...found, amplified_rounding: true }), /rounding.*2\.3e-3 apart/);
  assert.equal(lossesText({ ...found, to_the_last_bit: true }), "the same as recorded");
  assert.equal(lossesText({ ...found, losses: "different" }), "DIFFERENT from the record");
});

test("runs with other units have charts of their own", () => {
  const runs = [
    { id: "a", task: "translation", lossUnit: "target token" },
    { id: "b", task: "masked_lm", lossUnit: "masked token" },
    { id: "c", task: "translation", lossUnit: "target token" },
    { id: "d", task: "copy", lossUnit: null }, { id: "e", task: "sort", lossUnit: null },
  ];
  const all = measures(facts, new Map(["loss", "bleu", "perplexity"].map((name) => [name, {}])));
  const drawn = (some) => charts(all, some).map(({ key, title, unit, runs: ids }) => [key, title, unit, ids.join()]);
  const of = (key, some) => drawn(some).filter(([its]) => its === key).map(([, ...rest]) => rest);
  assert.deepEqual(of("loss", [runs[0], runs[2]]), [["training loss", "nats per target token", "a,c"]]);
  assert.deepEqual(of("loss", runs).map(([title, , ids]) => [title, ids]), [
    ["training loss, nats per target token", "a,c"], ["training loss, nats per masked token", "b"],
    ["training loss, nats per copy unit", "d"], ["training loss, nats per sort unit", "e"]]);
  assert.deepEqual(of("score.perplexity", runs.slice(0, 2)).map(([, , ids]) => ids), ["a", "b"]);
  assert.deepEqual(of("target_tokens_per_second", [runs[1]]), [["speed", "masked tokens/s", "b"]]);
  assert.deepEqual(of("score.bleu", runs), [["BLEU", "validation", "a,b,c,d,e"]]);
  assert.deepEqual(of("learning_rate", runs), [["learning rate", "", "a,b,c,d,e"]]);
  assert.equal(new Set(drawn(runs).map(([, title]) => title)).size, drawn(runs).length);
});

test("a value has the format and the unit of its fact", () => {
  const text = (name, value) => stepText(facts.named(name), value, { loss_unit: "label" });
  assert.equal(text("target_tokens_per_second", 1234.4), "1,234 labels/s");
  assert.equal(text("loss", 1.5), "1.500 nats per label");
  assert.equal(text("mfu", 0.412), "41.2%");
  assert.equal(text("mfu", null), "–");
  const standing = { numbers: { wait_seconds: 0.25 }, seconds_left: 90 };
  assert.equal(currentText(facts.named("wait_seconds"), standing), "25.0% of the time of recent steps");
  assert.equal(currentText(facts.named("seconds_left"), standing), "1 min 30 s");
  assert.equal(currentText(facts.named("mfu"), standing), null);
  const waits = { supervisor_state: "waiting_for_capacity" };
  assert.equal(currentText(facts.named("supervisor_state"), waits), "waiting for capacity");
  assert.deepEqual(facts.kindOf({ event: "of_a_later_version" }), { title: "of a later version", mark: "stop" });
});

test("only the loss of runs that smooth labels is named so", () => {
  const runs = [
    { id: "a", task: "translation", lossUnit: "target token", smooths: true },
    { id: "b", task: "causal_lm", lossUnit: "token", smooths: false },
  ];
  const losses = charts(measures(facts, new Map(), true), runs).filter(({ key }) => key === "loss");
  assert.deepEqual(losses.map(({ title }) => title),
    ["training loss (smoothed), nats per target token", "training loss, nats per token"]);
});

// A server: counts what it is asked, and says what is new.
class Server {
  frozen = null;
  asked = [];
  answers = {
    "/api/facts": served,
    "/api/runs": { folder: "runs", runs: [row("a", {})] },
    "/api/runs/a": { complete: true, validations: [], events: [] },
    "/api/runs/a/curves": { thinned: false, columns: columns() },
  };

  async ask(path) {
    this.asked.push(path);
    return structuredClone(this.answers[path.split("?")[0]]);
  }

  follow(listener) {
    this.listener = listener;
  }
}

const settled = () => new Promise((done) => setImmediate(done));

test("what is shown is asked for once, and then followed", async () => {
  const server = new Server();
  const store = new Store(server);
  const heard = [];
  store.onChange((id) => heard.push(id));
  await store.start();
  assert.equal(store.curves("a"), null);
  store.curves("a");
  store.details("a");
  assert.deepEqual(store.progress("a"), { done: 0, all: 2, missing: ["its curves", "its folder"] });
  await settled();
  assert.deepEqual(store.progress("a"), { done: 2, all: 2, missing: [] });
  assert.deepEqual(store.curves("a").columns.step, [1, 2, 3, 5]);
  server.listener.message("steps", {
    id: "a", columns: { step: [6], loss: [0.5] }, validations: [], events: [{ step: 6, event: "resumed" }],
  });
  assert.deepEqual(store.curves("a").columns.step, [1, 2, 3, 5, 6]);
  assert.equal(store.details("a").events.length, 1);
  server.listener.message("runs", { runs: [row("a", {}, { step: 6 }), row("new", {})] });
  assert.deepEqual(store.runs.map(({ id, standing }) => [id, standing.step]), [["a", 6], ["new", 10]]);
  assert.deepEqual(server.asked.filter((path) => path.includes("curves")).length, 1);
  assert.deepEqual(heard.slice(-2), ["a", null]);
});

test("the first steps of a run are drawn when they come", async () => {
  const server = new Server();
  for (const values of Object.values(server.answers["/api/runs/a/curves"].columns)) values.length = 0;
  const store = new Store(server);
  await store.start();
  store.curves("a");
  await settled();
  server.listener.message("steps", { id: "a", columns: { step: [1], loss: [4] }, validations: [], events: [] });
  assert.deepEqual(store.curves("a").columns.step, [1]);
});

test("after the connection was lost, what happened meanwhile is asked for", async () => {
  const server = new Server();
  const store = new Store(server);
  await store.start();
  store.curves("a");
  await settled();
  server.listener.standing("lost");
  assert.equal(store.link, "lost");
  const before = server.asked.length;
  server.answers["/api/runs/a/curves"].columns.step.push(6);
  server.listener.standing("following");
  store.curves("a");
  await settled();
  assert.equal(store.link, "following");
  assert.equal(store.curves("a").columns.step.at(-1), 6);
  assert.deepEqual(server.asked.slice(before).sort(), ["/api/runs", "/api/runs/a/curves?points=2000"]);
});

test("a thinned curve is asked for finer where it is looked at", async () => {
  const server = new Server();
  server.answers["/api/runs/a/curves"].thinned = true;
  const store = new Store(server);
  await store.start();
  store.curves("a");
  await settled();
  store.curves("a", [2, 3]);
  store.curves("a", [2, 3]);
  await settled();
  assert.deepEqual(server.asked.slice(3), ["/api/runs/a/curves?points=2000&from=2&to=3"]);
});

test("what could steer or hide text is shown as in a terminal", () => {
  for (const [text, expected] of JSON.parse(readFileSync(process.argv[3], "utf-8"))) assert.equal(visible(text), expected);
});
