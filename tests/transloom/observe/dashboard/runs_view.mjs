// The table of runs, and below it the differences and events of those that are chosen.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, press, tell, textOf } from "../../../support/page_in_node.mjs";
import * as page from "./dashboard_page.mjs";
import { all, answers, button, go, labelled, one, region, rowsOf, runs, settled, texts } from "./dashboard_page.mjs";

// Five shorter runs beside the three of the report, and one of another task; one run has an owner, one many events.
const LONG = "x".repeat(60);
for (let n = 3; n < 9; n++) {
  const id = `id-${n}`;
  const row = structuredClone(runs[2]);
  Object.assign(row, { id, name: `copy-${n}` });
  Object.assign(row.standing, { name: row.name, step: 300 - 10 * n });
  row.standing.settings.seed = n === 5 ? 7 : n; // as the seventh
  runs.push(row);
  for (const part of ["/curves", "/nodes"]) answers[`/api/runs/${id}${part}`] = answers[`/api/runs/id-2${part}`];
  answers[`/api/runs/${id}`] = { ...structuredClone(answers["/api/runs/id-2"]), ...row };
}
runs[8].standing.settings.task = "masked_lm";
runs[8].standing.step = 419;
runs[3].standing.settings["data.tag"] = LONG;
runs[4].standing.settings["data.tag"] = `${LONG}y`;
runs[5].standing.step = 700; // of 600: they were lowered later
runs[6].standing.max_steps = null;
Object.assign(runs[1].standing, { job_owner: "ana", priority: 3, reason: "the disk is full" });
runs[2].standing.scores = {};
answers["/api/runs/id-7"].events = Array.from({ length: 501 }, (_, n) => (
  { step: n + 1, event: "skipped", words: `skipped ${n + 1}`, details: {} }));
answers["/api/runs"].problems = ["a folder cannot be read", "another"];

const scrolled = [];
page.openReport({ scrollTo: (...to) => scrolled.push(to) });
await settled();
const NAMES = runs.map(({ name }) => name);
const rows = () => all("table.runs tbody tr");
const named = (name) => rows().find((row) => textOf(one("td.name", row)) === name);
const order = () => texts("table.runs td.name");
const box = (name) => labelled(`curves of ${name}`);
const chosen = () => rows().filter((row) => one("input", row).checked).map((row) => textOf(one("td.name", row)));
const heads = () => all("table.runs thead th");
const head = (title) => heads().find((each) => textOf(each).replace(/ [↓↑]$/, "") === title);
const cell = (name, title) => named(name).children[heads().indexOf(head(title))];
const filter = () => document.getElementById("filter");
const said = () => textOf(document.getElementById("filter-said"));
async function search(text) {
  filter().value = text;
  tell(filter(), "input");
  await settled();
}
async function sortBy(title) {
  one("button", head(title)).focus();
  click(one("button", head(title)));
  await settled();
}

test("at first the run that trains and the longest ones of its task are chosen", () => {
  assert.equal(document.title, "9 runs · transloom");
  assert.deepEqual(order(), NAMES);
  assert.deepEqual(chosen(), [NAMES[0], NAMES[1], NAMES[2], NAMES[3], NAMES[5]]);
  assert.equal(location.hash, "");
  assert.equal(textOf(document.getElementById("folder")), "runs");
  assert.equal(document.getElementById("link").className, "frozen");
  assert.match(textOf(document.getElementById("link")), /^report of \d{4}-\d\d-\d\d /);
});

test("a chosen run has the colour of its curves", () => {
  const swatches = new Map(rows().map((row) => [textOf(one("td.name", row)), one(".swatch", row).className]));
  const curves = new Map(all(".readout li", page.chart("training loss")).map((item) => (
    [textOf(item.children[1]), one(".swatch", item).className])));
  assert.equal(curves.size, 5);
  for (const [name, swatch] of swatches) {
    assert.equal(swatch, curves.get(name) ?? "swatch", name);
    assert.equal(named(name).classList.contains("selected"), curves.has(name));
  }
  assert.equal(new Set(curves.values()).size, 5);
  for (const swatch of curves.values()) assert.match(swatch, /^swatch run-[0-7]$/);
});

test("a run is chosen by its box, and the others stay", async () => {
  click(box(NAMES[1]));
  await settled();
  assert.deepEqual(chosen(), [NAMES[0], NAMES[2], NAMES[3], NAMES[5]]);
  assert.equal(page.readout("training loss").length, 4);
  assert.match(location.hash, /runs=/);
  click(box(NAMES[8]));
  await settled();
  assert.deepEqual(chosen(), [NAMES[0], NAMES[2], NAMES[3], NAMES[5], NAMES[8]]);
  click(box(NAMES[1]));
  await settled();
  assert.ok(chosen().includes(NAMES[1]));
});

test("a run that no longer exists is not shown", async () => {
  await go("#runs=id-0,gone");
  assert.deepEqual(chosen(), [NAMES[0]]);
});

test("a filter leaves the runs that fit, and says how many", async () => {
  assert.match(said(), /^9 runs · 2 problems: a folder cannot be read$/);
  await search("state:finished bleu>80");
  assert.match(said(), /^1 of 9 runs/);
  assert.deepEqual(order(), [NAMES[1]]);
  assert.equal(page.readout("training loss").length, 0); // the chosen run is not among them
  await search("widht=3 seed=4");
  assert.match(said(), /^0 of 9 runs · no run has a field “widht” ·/);
  await search("");
  assert.match(said(), /^9 runs/);
  assert.match(location.hash, /^#runs=id-0,gone$/);
});

test("a field that is written is not changed by the address", async () => {
  filter().focus();
  filter().value = "cop";
  await go("#runs=id-0&filter=copy-3");
  assert.equal(filter().value, "cop");
  assert.deepEqual(order(), ["copy-3"]);
  filter().blur();
  await go("#runs=id-0&filter=copy-4");
  assert.equal(filter().value, "copy-4");
  await search("");
});

test("fields to filter by are offered", () => {
  const offered = all("#known-fields option").map((each) => each.getAttribute("value"));
  for (const field of ["name=", "state=", "owner=", "mfu=", "model.width="]) assert.ok(offered.includes(field), field);
});

test("a click on a column's head sorts the best first, then the other way, then not", async () => {
  const bleu = (name) => Number(textOf(cell(name, "BLEU")).replace("–", "NaN"));
  await sortBy("BLEU");
  assert.match(location.hash, /sort=-bleu/);
  assert.equal(head("BLEU").getAttribute("aria-sort"), "descending");
  assert.equal(textOf(head("BLEU")), "BLEU ↓");
  assert.ok(document.activeElement === one("button", head("BLEU"))); // the new head has the focus
  let found = order().map(bleu);
  assert.ok(Number.isNaN(found.at(-1)) && found.slice(1, -1).every((value, n) => value <= found[n]));
  assert.equal(order().at(-1), NAMES[2]);
  await sortBy("BLEU");
  assert.match(location.hash, /sort=bleu/);
  assert.equal(head("BLEU").getAttribute("aria-sort"), "ascending");
  assert.equal(textOf(head("BLEU")), "BLEU ↑");
  found = order().map(bleu);
  assert.ok(Number.isNaN(found.at(-1)) && found.slice(1, -1).every((value, n) => value >= found[n]));
  await sortBy("BLEU");
  assert.doesNotMatch(location.hash, /sort/);
  assert.ok(!head("BLEU").getAttribute("aria-sort"));
  assert.deepEqual(order(), NAMES);
});

test("the first order of a column is the useful one", async () => {
  for (const [title, sort] of [["run", "name"], ["perplexity", "perplexity"], ["time left", "seconds_left"],
    ["speed", "-target_tokens_per_second"],
    ["step", "-step"], ["owner", "-job_owner"]]) {
    await sortBy(title);
    assert.equal(new URLSearchParams(location.hash.slice(1)).get("sort"), sort);
    assert.equal(all("th[aria-sort]").length, 1);
  }
  await sortBy("owner");
  await sortBy("owner");
  assert.deepEqual(order(), NAMES);
});

test("the focus stays on a run when the order changes", async () => {
  box(NAMES[2]).focus();
  await go("#runs=id-0&sort=-seed");
  assert.equal(order()[0], NAMES[8]);
  assert.ok(document.activeElement === box(NAMES[2]));
  await go("#runs=id-0&sort=");
});

test("cells have a run's state, progress, scores and speed", () => {
  const [first, second] = [NAMES[0], NAMES[1]];
  assert.equal(one("a", cell(first, "run")).getAttribute("href"), "#run=id-0");
  assert.deepEqual([textOf(cell(second, "state")), cell(second, "state").className, cell(second, "state").title],
    ["finished", "state finished", "the disk is full"]);
  assert.equal(cell(first, "state").title, "");
  assert.equal(textOf(cell(first, "step")), "420 of 600");
  const done = (name) => one(".done", cell(name, "step"));
  assert.equal(one("i", done(first)).style.width, "70%");
  assert.equal(one("i", done(NAMES[5])).style.width, "100%"); // more than planned
  assert.equal(one("i", done(NAMES[6])).style.width, "0%");
  assert.deepEqual([done(first).hidden, done(NAMES[6]).hidden], [false, true]);
  assert.equal(textOf(cell(NAMES[6], "step")), "240");
  const { scores, best } = runs[0].standing;
  assert.equal(textOf(cell(first, "BLEU")), scores.bleu.value.toFixed(2));
  assert.equal(textOf(cell(first, "validation loss")), scores.loss.value.toFixed(4));
  assert.equal(textOf(cell(NAMES[2], "BLEU")), "–");
  assert.equal(cell(first, "BLEU").title, `best ${best.bleu.value.toFixed(2)} at step 75`);
  assert.equal(cell(first, "perplexity").title, "");
  assert.equal(textOf(cell(first, "speed")), "6,800 target tokens/s");
  assert.equal(textOf(cell(first, "time left")), "47 s");
  assert.equal(textOf(cell(second, "time left")), "");
  assert.equal(textOf(cell(second, "owner")), "ana");
  assert.equal(textOf(cell(second, "priority")), "3");
  assert.ok(!head("cost")); // no run has one
  const classes = Object.fromEntries(["run", "state", "step", "BLEU", "speed", "owner", "priority"].map((title) => (
    [title, [head(title).className, cell(second, title).className.split(" ").includes("number")]])));
  assert.deepEqual(classes, { run: ["", false], state: ["", false], step: ["number", true], BLEU: ["number", true],
    speed: ["number", true], owner: ["", false], priority: ["number", true] });
});

test("columns of settings are chosen in a menu, first those in which runs differ", async () => {
  const [menu] = all(".runs .choices");
  const titles = [...menu.children].map(textOf);
  assert.deepEqual(titles.slice(1, titles.indexOf("Other settings")), ["data.tag", "model.dropout", "seed", "task"]);
  assert.deepEqual(titles.slice(titles.indexOf("Other settings") + 1), ["model.width", "trainer.max_steps"]);
  assert.ok(all("input", menu).every(({ checked }) => !checked));
  click(one("input[value='data.tag']", menu));
  await settled();
  assert.match(location.hash, /columns=data\.tag/);
  assert.ok(one("input[value='data.tag']", menu).checked);
  assert.equal(head("data.tag").className, "");
  assert.equal(textOf(cell(NAMES[0], "data.tag")), "–");
  assert.equal(textOf(cell(NAMES[3], "data.tag")), LONG);
  assert.equal(textOf(cell(NAMES[4], "data.tag")), `${LONG}…`);
  assert.equal(cell(NAMES[4], "data.tag").title, `${LONG}y`);
  assert.ok(!one("img, script", one("main")));
  assert.equal(textOf(cell(NAMES[0], "step")), "420 of 600");
  await sortBy("data.tag");
  assert.match(location.hash, /sort=data\.tag/);
  click(one("input[value='data.tag']", one(".runs .choices")));
  await settled();
  assert.ok(!head("data.tag"));
  await go("#runs=id-0&sort=");
});

test("recipes of the chosen runs are compared", async () => {
  const table = () => region("Table of differences");
  await go("#runs=id-0");
  assert.ok(!one("table", table()));
  assert.match(textOf(table()), /two or more/);
  await go("#runs=id-0,id-1");
  assert.deepEqual(texts("thead th", table()), ["setting", NAMES[0], NAMES[1]]);
  const settings = runs.map(({ standing }) => standing.settings);
  assert.deepEqual(rowsOf(table()), [["data.tag", "–", settings[1]["data.tag"]], ["model.dropout", "0.1", "0.3"],
    ["seed", "0", "1"]]);
  await go("#runs=id-0,id-1,id-8");
  assert.equal(all("thead th", table()).length, 4);
  assert.ok(rowsOf(table()).some(([setting, , , value]) => setting === "task" && value === "masked_lm"));
  await go("#runs=id-5,id-7");
  assert.match(textOf(table()), /the same/);
});

test("events of the chosen runs are listed with the newest first, and a click opens their step", async () => {
  const list = () => region("List of events");
  await go("#runs=id-0,id-1");
  const expected = ["id-0", "id-1"].flatMap((id, n) => answers[`/api/runs/${id}`].events.map((event) => [event.step,
    NAMES[n], event.words]))
    .sort((a, b) => b[0] - a[0]);
  assert.deepEqual(rowsOf(list()).map(([step, name, , words]) => [Number(step), name, words]), expected);
  assert.equal(rowsOf(list())[0][2], "stop");
  assert.ok(one(".mark.mark-stop", list()));
  assert.doesNotMatch(textOf(list()), /newest/);
  const swatches = all(".swatch", list()).map(({ className }) => className);
  assert.equal(swatches[0], one(".swatch", named(expected[0][1])).className);
  click(one("tbody button", list()));
  await settled();
  assert.equal(textOf(one("dialog h2")), `Step 300 of ${expected[0][1]}`);
  click(button("Close", one("dialog")));
  await settled();
  await go("#runs=id-2");
  assert.match(textOf(list()), /^No events: no restart, resize, skip/);
});

test("of very many events the newest are listed", async () => {
  await go("#runs=id-7");
  const list = region("List of events");
  assert.equal(all("tbody tr", list).length, 500);
  assert.equal(rowsOf(list)[0][0], "501");
  assert.equal(rowsOf(list).at(-1)[0], "2");
  assert.equal(textOf(one("p", list)), "Showing the newest 500 of 501.");
});

test("a run is opened by its name, and the table returns as it was", async () => {
  await go("#runs=id-0,id-1&filter=phrase&zoom=100..200&smooth=0.5&log=loss");
  scrolled.length = 0;
  click(one("a", cell(NAMES[0], "run")));
  await settled();
  assert.equal(textOf(one("main h1")), NAMES[0]);
  assert.equal(document.title, `${NAMES[0]} · transloom`);
  assert.ok(!one("table.runs"));
  assert.deepEqual(scrolled, [[0, 0]]);
  const shared = new URLSearchParams(location.hash.slice(1)); // the look of charts goes along, not their part
  assert.deepEqual(["run", "smooth", "log", "zoom"].map((name) => shared.get(name)), ["id-0", "0.5", "loss", null]);
  click(one("a.back"));
  await settled();
  assert.ok(one("table.runs"));
  assert.equal(document.title, "9 runs · transloom");
  assert.deepEqual(scrolled, [[0, 0], [0, 0]]);
  assert.deepEqual(chosen(), [NAMES[0], NAMES[1]]);
  assert.equal(filter().value, "phrase");
  const view = new URLSearchParams(location.hash.slice(1));
  assert.deepEqual(["runs", "filter", "zoom", "smooth", "run"].map((name) => view.get(name)),
    ["id-0,id-1", "phrase", null, "0.5", null]);
  await go("#filter=copy");
  assert.equal(scrolled.length, 2); // the same page
});

test("Enter on a run's link is left to the browser", () => {
  assert.ok(press(one("td.name a"), "Enter"));
});

test("without chosen runs the page asks for a choice", async () => {
  await go("#runs=id-0&filter=");
  await search("");
  click(box(NAMES[0]));
  await settled();
  assert.deepEqual(chosen(), []);
  assert.match(page.said(), /Select runs/);
  assert.equal(page.charts().length, 0);
});

