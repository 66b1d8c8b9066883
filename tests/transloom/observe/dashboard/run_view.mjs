// The page of one run in a report: all parts that its folder has, and those that it lacks.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, tell, textOf } from "../../../support/page_in_node.mjs";
import * as page from "./dashboard_page.mjs";
import { all, answers, button, go, labelled, one, region, rowsOf, runs, settled, texts } from "./dashboard_page.mjs";

const NOON = new Date(2026, 5, 1, 12, 0, 0).getTime() / 1000;
const GIB = 2 ** 30;
const of = (id) => answers[`/api/runs/${id}`];
const [first, second, third] = runs.map(({ standing }) => standing);
const moment = (step, output, ended, weights) => ({ step, output, ended, weights, source: ["▁un", "▁deux"],
  target: ["<s>", "▁one", "▁two"] });

// The first run has everything.
Object.assign(of("id-0"), {
  test_scores: [{ test_set: "wmt", score: "BLEU", value: 33.333, checkpoint: "step-300", beam_size: 4,
    length_penalty: 0.6, signature: "12345" }],
  hashes: { "recipe.yaml": "12ab", "metrics.jsonl": "34" },
  environment: { versions: { torch: "2.13.0", deep: { er: 1 } }, commit: "c8ff302", none: null, list: [1, 2] },
  cleaning: { news: { read: 2000, kept: 1990, dropped: { too_long: 10, empty: 0 } }, empty: { read: 0, kept: 0 } },
});
of("id-0").card.parent = { run: "older", step: 7 };
of("id-0").validations[1].scores.chrf = { value: 55.5, decoding: "greedy" };
Object.assign(first, { memory_checkpoint_step: 1410, best: { bleu: { value: 91.2, step: 75 }, loss: { value: 0.5,
  step: first.scores_step } },
  problems: ["its disk is slow"], max_steps: 600 });
first.slow_ranks.push({ rank: 1, node: null, cause: "data", factor: 3 });
first.vitals.unfit_nodes = ["node-7: its memory failed"];
first.vitals.restarts.unshift({ time: NOON, cause: "an earlier one" });
first.vitals.data_workers.push({ number: 1, node: null, alive: false, windows_read: 1234, silent_seconds: 75 });
first.checkpoints[0].time = NOON;
first.vitals.time = NOON;
answers["/api/runs/id-0/nodes"].nodes = {
  "node-1": { time: [NOON, NOON + 1800, NOON + 3600], cpu_percent: [10, 20, 30],
    memory_used_bytes: [GIB, null, 3 * GIB],
    gpus: [{ index: 0, utilization_percent: [50, 60, 70], memory_used_bytes: [GIB, GIB, 2 * GIB] },
      { index: 1, utilization_percent: [1, 2, 3], memory_used_bytes: [GIB, GIB, GIB] }] },
  "node-2": { time: [NOON], cpu_percent: [99], memory_used_bytes: [5 * GIB], gpus: [] },
};
answers["/api/runs/id-0/time-lapse"] = { problems: ["a line is damaged"], sentences: {
  "un deux": [moment(1, "", false, [[90, 10], [0, 100], [50, 50]]), moment(8, "one", true, [[80, 20], [30, 70], [50,
    50]]),
    moment(1064, "one two", true, [[70, 30], [20, 80], [40, 60]])],
  trois: [moment(8, "three", true, [[100, 0]]), moment(1064, "three!", true, [[100, 0]])],
} };

// The second run has a reason, and nothing of much of it; the third has answers that say so.
Object.assign(second, { reason: "the disk is full", smooths_labels: true, checkpoints: [], vitals: null, ranks: null,
  slow_ranks: null, best: {},
  scores_step: 375 });
Object.assign(of("id-1"), { cleaning: null, environment: {}, commands: [], log: [], samples: [], validations: [],
  card: null });
answers["/api/runs/id-1/nodes"] = { thinned: false, problem: null, nodes: {} };
answers["/api/runs/id-1/time-lapse"] = { problems: [], sentences: {} };
Object.assign(third, { checkpoints: [], memory_checkpoint_step: 5, owner: null });
third.numbers.nll = third.numbers.loss;
third.vitals = { ...third.vitals, ranks: [], data_workers: [], restarts: [] };
delete answers["/api/runs/id-2/nodes"];
answers["/frozen"].run = "id-0";

const copied = [];
page.openReport({ navigator: { language: "en", clipboard: { writeText: async (text) => { copied.push(text); } } } });
await settled();

const part = (name) => all("main section.part").find((each) => each.getAttribute("aria-label") === name);
const facts = () => new Map(all(".facts > div", part("Status")).map((each) => [...each.children].map(textOf)));
const table = (name, caption) => all("table", part(name)).find((each) => textOf(one("caption",
  each)) === caption || !caption);
const local = (seconds) => page.moduleOf("words.js").moment(seconds);
const link = (name) => button(name, one("nav.parts"));
const cells = (row) => [...row.children].map(({ className }) => className);

test("a report about one run opens its page", () => {
  assert.equal(textOf(one("main h1")), first.name);
  assert.equal(document.title, `${first.name} · transloom`);
  assert.deepEqual(texts(".headline span"), ["training", "step 420 of 600",
    `validation loss ${first.scores.loss.value.toFixed(4)}`,
    `perplexity ${first.scores.perplexity.value.toFixed(2)}`, `BLEU ${first.scores.bleu.value.toFixed(2)}`,
    "47 s left"]);
  assert.ok(!one(".run").classList.contains("unread"));
  assert.ok(one("progress").hidden && one(".reading p").hidden);
  assert.equal(page.charts().length > 3, true);
  assert.deepEqual(page.readout("training loss").map((text) => text.replace(/[\d.]+$/, "")), [first.name]);
});

test("the status has what is known of the run", () => {
  const known = facts();
  const expected = {
    state: "training", step: "420 of 600", "training loss": `${first.numbers.loss.toFixed(3)} nats per target token`,
    "training NLL": `${first.numbers.nll.toFixed(3)} nats per target token, unsmoothed`,
    speed: "6,800 target tokens/s", MFU: "41.2%",
    BLEU: `${first.scores.bleu.value.toFixed(2)} (best 91.20, step 75)`,
    "validation loss": first.scores.loss.value.toFixed(4),
    perplexity: first.scores.perplexity.value.toFixed(2), ranks: "3 ranks: 2 on node-1, 1 on node-2",
    folder: first.path, "run id": "c4104faa",
    dataset: of("id-0").card.dataset_identity, "first weights": '{"run":"older","step":7}', "time left": "47 s",
    "trained by": `process 4242 on node-1, since ${local(first.owner.since)}`,
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(known.get(name), value, name);
  assert.match(known.get("waiting for other ranks"), /^10\.0% of /);
  const slow = known.get("slow").split("; ");
  assert.match(slow[0], /^rank 2 on node-2: 1\.88 times .* computes longer$/);
  assert.match(slow[1], /^rank 1: 3\.00 times .* waits longer for data$/);
  assert.deepEqual(texts(".problem", part("Status")), ["its disk is slow"]);
});

test("ranks and data workers are listed with their last sign of life", () => {
  assert.equal(textOf(one("p", part("Ranks and data workers"))), `State at ${local(NOON)}, start 2 of the ranks.`);
  const of = (caption) => rowsOf(table("Ranks and data workers", caption));
  assert.deepEqual(of("Ranks by node"), [0, 1, 2].map((rank) => [`node-${rank < 2 ? 1 : 2}`, String(rank), "step",
    "420", "0 s"]));
  assert.deepEqual(of("Data workers"), [["node-1", "0", "alive", "6", "1 s"],
    ["–", "1", "silent", "1,234", "1 min 15 s"]]);
  assert.deepEqual(of("Nodes that are left out"), [["node-7: its memory failed"]]);
  assert.deepEqual(of("Restarts"), [[local(1_795_297_050), "rank 1 died: signal 9"], [local(NOON), "an earlier one"]]);
  const found = part("Ranks and data workers");
  assert.deepEqual(cells(all("tbody tr", table(found.getAttribute("aria-label"), "Restarts"))[0]), ["number", "text"]);
  assert.deepEqual(cells(all("tbody tr", table(found.getAttribute("aria-label"), "Nodes that are left out"))[0]),
    ["text"]);
  const isTall = (name) => /\btall\b/.test(labelled(name, found).className);
  assert.deepEqual(["Ranks by node", "Data workers", "Restarts"].map(isTall), [true, true, false]);
  assert.ok(all("caption", found).every(({ className }) => className === "")); // they tell the tables apart
});

test("validations are listed with the newest first", () => {
  const validations = table("Validations");
  assert.deepEqual(texts("thead th", validations), ["step", "validation loss", "perplexity", "BLEU", "chrF (greedy)"]);
  const expected = of("id-0").validations.map(({ step, scores }) => [String(step), scores.loss.value.toFixed(4),
    scores.perplexity.value.toFixed(2), scores.bleu.value.toFixed(2), scores.chrf ? "55.50" : "–"]);
  assert.deepEqual(rowsOf(validations), expected.toReversed());
  assert.deepEqual(all("tbody td", validations).slice(0, 4).map(({ className }) => className), Array(4).fill("number"));
});

test("parts that repeat their heading hide the caption of their table, and long ones scroll", () => {
  const [scrolls, other] = [["Validations", "Samples", "Checkpoints", "Dataset cleaning", "Recipe", "Environment",
    "Log"], ["Test sets", "Hashes"]];
  for (const name of [...scrolls, ...other]) {
    assert.equal(one("caption", part(name)).className, "unseen", name);
    assert.equal(/\btall\b/.test(one(".scrolls", part(name)).className), scrolls.includes(name), name);
  }
});

test("test sets, hashes and commands are those of the report", async () => {
  assert.deepEqual(rowsOf(part("Test sets")), [["wmt", "BLEU", "33.33", "step-300", "beam 4, α 0.6", "12345"]]);
  assert.deepEqual(cells(one("tbody tr", part("Test sets"))), ["", "", "number", "text", "text", "text"]);
  assert.deepEqual(rowsOf(part("Hashes")), [["recipe.yaml", "12ab"], ["metrics.jsonl", "34"]]);
  assert.deepEqual(cells(all("tbody tr", part("Hashes"))[1]), ["", "text"]);
  const commands = part("Commands to reproduce it");
  assert.deepEqual(texts("code", commands), of("id-0").commands);
  const copy = one("button", commands);
  click(copy);
  await settled();
  assert.deepEqual(copied, of("id-0").commands);
  assert.equal(textOf(copy), "copied");
});

test("checkpoints are listed with the newest first, and the one in memory above", () => {
  const scores = first.checkpoints[0].scores;
  assert.deepEqual(rowsOf(part("Checkpoints")), [["300", "writing", "–", "", ""], ["150", "complete", "10.8 MB",
    local(NOON),
    `validation loss ${scores.loss.value.toFixed(4)}, perplexity ${scores.perplexity.value.toFixed(2)}, `
      + `BLEU ${scores.bleu.value.toFixed(2)}`]]);
  assert.match(textOf(one("p", part("Checkpoints"))), /1,410/);
});

test("texts of the run are shown as they are", () => {
  const samples = of("id-0").samples;
  assert.deepEqual(rowsOf(part("Samples")), [Object.values(samples[0]), [samples[1].source, "\\u202eneddih",
    "\\x1b]0;hi\\x07"]]);
  assert.deepEqual(cells(one("tbody tr", part("Samples"))), ["text", "text", "text"]);
  assert.ok(!one("img, script", one("main")));
  assert.deepEqual(rowsOf(part("Log")), of("id-0").log.toReversed().map(({ time, text }) => [local(time), text]));
  assert.deepEqual(cells(one("tbody tr", part("Log"))), ["number", "text"]);
});

test("the dataset's cleaning has shares of what was read", () => {
  assert.deepEqual(rowsOf(part("Dataset cleaning")), [["news", "read", "2,000", ""], ["", "kept", "1,990", "99.50 %"],
    ["", "dropped: too long", "10", "0.50 %"], ["empty", "read", "0", ""], ["", "kept", "0", ""]]);
  assert.deepEqual(cells(one("tbody tr", part("Dataset cleaning"))), ["text", "", "number", ""]);
});

test("the recipe and the environment are flat lists", () => {
  assert.deepEqual(rowsOf(part("Recipe")), Object.entries(first.settings).map(([key, value]) => [key,
    value === null ? "–" : String(value)]));
  assert.deepEqual(cells(all("tbody tr", part("Recipe"))[1]), ["", "text"]);
  assert.deepEqual(rowsOf(part("Environment")), [["versions.torch", "2.13.0"], ["versions.deep.er", "1"], ["commit",
    "c8ff302"], ["none", "–"],
    ["list", "[1,2]"]]);
  assert.deepEqual(cells(one("tbody tr", part("Environment"))), ["", "text"]);
});

test("a link leads to each part, and moves the focus there", () => {
  click(link("Samples"));
  assert.ok(document.scrolledTo === part("Samples"));
  assert.ok(document.activeElement === one("h2", part("Samples")));
});

const lines = (title) => texts(".readout li", nodeChart(title));
const nodeChart = (title) => all("figure.chart", part("Nodes")).find((each) => textOf(one("h3", each)) === title);
const shownOn = (title) => page.visibleOn(one("canvas", nodeChart(title)));

test("the usage of nodes is drawn over the time of day", () => {
  assert.deepEqual(texts("h3", part("Nodes")), ["CPU", "memory", "GPU", "GPU memory"]);
  assert.deepEqual(lines("CPU"), ["node-130", "node-299"]);
  assert.deepEqual(lines("memory"), ["node-13", "node-25"]); // GiB
  assert.deepEqual(lines("GPU"), ["node-1 GPU 070", "node-1 GPU 13"]);
  assert.deepEqual(lines("GPU memory"), ["node-1 GPU 02", "node-1 GPU 11"]);
  const labels = shownOn("CPU").texts.filter((text) => text.includes(":"));
  assert.ok(labels.length > 5 && labels.every((label) => /^1[23]:\d\d$/.test(label)), labels);
  assert.deepEqual(labels, labels.toSorted());
  const swatches = all(".swatch", nodeChart("GPU")).map(({ className }) => className);
  assert.deepEqual(swatches, ["swatch run-0", "swatch run-1"]);
  const dots = shownOn("CPU").areas.map((area) => area.dots.length).filter(Boolean);
  assert.deepEqual(dots, [3, 1]); // also a single sample
  assert.equal(shownOn("CPU").lines.filter(({ alpha }) => alpha < 1).length, 0); // without marks
});

test("a part of the time is shown in all charts of nodes", async () => {
  const over = one(".u-over", nodeChart("CPU"));
  const at = (left) => ({ clientX: 100 + left, clientY: 100, button: 0, movementX: 1, movementY: 1 });
  tell(over, "mousemove", at(0));
  await settled();
  assert.match(lines("CPU")[0], /^time \d{4}-\d\d-\d\d 1[23]:\d\d:\d\d$/); // not in seconds since 1970
  assert.match(one("[role=slider]", nodeChart("CPU")).getAttribute("aria-valuetext"), /^time .* 1[23]:\d\d:\d\d, node-1 /);
  tell(over, "mousedown", at(0));
  tell(over, "mousemove", at(300));
  tell(document, "mouseup", at(300));
  await settled();
  for (const title of ["CPU", "GPU memory"]) {
    const labels = shownOn(title).texts.filter((text) => text.includes(":"));
    assert.ok(labels.length > 1 && labels.every((label) => label < "12:20"), labels);
  }
  assert.doesNotMatch(location.hash, /zoom/);
  tell(over, "dblclick", at(0));
  tell(over, "mouseleave", at(-200));
  await settled();
  assert.ok(shownOn("CPU").texts.some((text) => /^12:[45]/.test(text)));
});

const lapse = () => part("Time-lapse");
const sentence = () => one("select", lapse());
const output = () => textOf(one("output", lapse()));
const slide = () => one("input[type=range]", lapse());

test("a time-lapse begins with the newest translation, and its slider goes back", async () => {
  assert.equal(lapse().hidden, false);
  assert.deepEqual(texts("option", sentence()), ["un deux", "trois"]);
  assert.equal(output(), "one two");
  assert.match(textOf(one(".player", lapse())), /after 1,064 steps/);
  assert.deepEqual(texts(".problem", lapse()), ["a line is damaged"]);
  const [, all3] = all("table", lapse());
  assert.deepEqual(rowsOf(all3), [["1,064", "one two"], ["8", "one"], ["1", "(nothing)"]]);
  assert.deepEqual([cells(one("tbody tr", all3)), one("caption", all3).className, all3.parentElement.className],
    [["number", "text"], "unseen", "scrolls tall"]);
  slide().value = "0";
  tell(slide(), "input");
  assert.equal(output(), "(nothing) …"); // the model did not end it
  assert.match(textOf(one(".player", lapse())), /after 1 step$/);
  const map = region("Cross-attention");
  assert.deepEqual(texts("thead th", map), ["piece", "▁un", "▁deux"]);
  assert.deepEqual(rowsOf(map), [["▁one", "90", "10"], ["▁two", "", "100"], ["…", "50", "50"]]);
  assert.deepEqual(all("td", map).slice(0, 3).map((cell) => cell.style.getPropertyValue("--weight")),
    ["45%", "5%", "0%"]);
});

test("another sentence is shown at the same place, or at its newest step", () => {
  fill(sentence(), "trois");
  assert.equal(output(), "three");
  assert.deepEqual(rowsOf(all("table", lapse())[1]).map(([step]) => step), ["1,064", "8"]);
  assert.deepEqual(rowsOf(region("Cross-attention")), [["▁one", "100", ""]]);
  slide().value = "1";
  tell(slide(), "input");
  assert.equal(output(), "three!");
  fill(sentence(), "un deux");
  assert.equal(output(), "one two");
  assert.deepEqual(rowsOf(region("Cross-attention")).map(([piece]) => piece), ["▁one", "▁two", "(end)"]);
});

test("a run that lacks much says so", async () => {
  await go("#run=id-1");
  assert.equal(textOf(one("main h1")), second.name);
  const known = facts();
  assert.equal(known.get("state"), "finished: the disk is full");
  for (const name of ["ranks", "slow", "run id", "dataset", "first weights", "time left",
    "training loss"]) assert.equal(known.get(name), undefined, name);
  assert.ok(known.has("training loss (smoothed)"));
  assert.equal(known.get("BLEU"), second.scores.bleu.value.toFixed(2));
  assert.equal(texts(".problem", part("Status")).length, 0);
  const said = Object.fromEntries(["Ranks and data workers", "Validations", "Samples", "Checkpoints",
    "Commands to reproduce it", "Dataset cleaning",
    "Environment", "Log", "Nodes"].map((name) => [name, textOf(part(name)).slice(name.length)]));
  assert.deepEqual(said, { "Ranks and data workers": "No information about its processes.",
    Validations: "No validation yet.",
    Samples: "No samples yet: a validation records them.", Checkpoints: "No checkpoint yet.",
    "Commands to reproduce it": "Not known.",
    "Dataset cleaning": "The dataset's cleaning report is not available.", Environment: "Not recorded.", Log: "Empty.",
    Nodes: "No node usage was recorded." });
  for (const name of ["Test sets", "Hashes", "Time-lapse"]) assert.ok(part(name).hidden && link(name).hidden, name);
  for (const name of ["Samples", "Nodes", "Status"]) assert.ok(!part(name).hidden && !link(name).hidden, name);
  assert.equal(page.charts().length > 3, true);
  assert.equal(textOf(one("h3", page.charts()[0])), "training NLL"); // which compares with other runs
  assert.equal(textOf(one("h3", page.charts()[1])), "training loss (smoothed)");
  assert.ok(!texts(".charts h3").includes("BLEU"));
});

test("a run's parts without contents", async () => {
  await go("#run=id-2");
  assert.ok(!facts().has("training NLL") && facts().has("training loss")); // it would repeat the loss
  assert.ok(!facts().has("trained by"));
  assert.deepEqual(texts("p", part("Checkpoints")).slice(1), ["No checkpoint on disk yet."]);
  assert.equal(all("table", part("Ranks and data workers")).length, 0);
  assert.match(textOf(part("Ranks and data workers")), /Last state, at/);
  assert.match(textOf(part("Nodes")), /does not include/);
  assert.match(textOf(part("Time-lapse")), /does not include/);
  assert.equal(all("select", part("Time-lapse")).length, 0);
  assert.match(textOf(region("List of events")), /^No events/);
});

test("a run that is not in the report", async () => {
  await go("#run=nothing");
  assert.equal(textOf(one("main h1")), "nothing");
  assert.equal(document.title, "nothing · transloom");
  assert.ok(one(".run").classList.contains("unread"));
  assert.match(textOf(one(".headline")), /no such run/);
  assert.ok(one("progress").hidden && one(".reading p").hidden);
  await go("#run=id-0");
  assert.ok(!one(".run").classList.contains("unread"));
  assert.equal(output(), "one two");
  assert.deepEqual(lines("CPU"), ["node-130", "node-299"]);
  assert.equal(part("Test sets").hidden, false);
});

test("a step of a report says how to inspect it", async () => {
  await go("#run=id-0&step=id-0@137");
  const dialog = one("dialog");
  assert.ok(dialog.open);
  assert.equal(textOf(one("h2", dialog)), `Step 137 of ${first.name}`);
  assert.ok(document.activeElement === one("h2", dialog));
  const record = new Map(all(".facts > div", dialog).map((each) => [...each.children].map(textOf)));
  const columns = answers["/api/runs/id-0/curves"].columns;
  assert.equal(record.get("training loss"), `${columns.loss[136].toFixed(3)} nats per target token`);
  assert.equal(record.get("data so far"), `${(137 * 1720).toLocaleString("en")} target tokens`);
  assert.equal(record.get("ranks"), "2");
  assert.ok(one("form", dialog).hidden);
  assert.equal(textOf(one("code", dialog)), `transloom replay ${first.path} --steps 137:137 --look`);
  await go("#run=id-0&step=id-0@151");
  assert.match(textOf(dialog), /2 ranks have started again/);
  await go("#run=id-0&step=id-0@9999");
  assert.match(textOf(dialog), /report does not include every step/);
  await go("#run=id-0");
  assert.ok(!dialog.open);
});
