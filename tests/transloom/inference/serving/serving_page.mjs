// The page of `transloom serve`: argument 2 is its file, with its modules joined into one script.

import assert from "node:assert/strict";
import { test } from "node:test";

import { fill, holdClock, open, press, tell, textOf } from "../../../support/page_in_node.mjs";

const pass = holdClock();
async function settled() {
  for (let n = 0; n < 6; n++) await new Promise((resolve) => setImmediate(resolve));
}

const run = (name, source, target, more = {}) => ({ name, source_language: source, target_language: target,
  ready: true, damaged: [],
  checkpoints: ["step-00000300"], limits: { n_best: 4 }, ...more });
const listed = [run("phrases", "fr", "en"), run("psalms", "ar-EG", "he", { limits: { n_best: 50 } })];
let down = true; // the server does not answer yet
let reply = () => ({ translations: [] });
const asked = []; // requests to translate: {path, body, options}
const looks = []; // requests for the list of runs
async function respond(path, options) {
  if (down) throw new TypeError("failed to fetch");
  if (path === "runs") {
    looks.push(path);
    return { ok: true, json: async () => structuredClone({ runs: listed }) };
  }
  const request = { path, options, body: JSON.parse(options.body) };
  asked.push(request);
  const { status = 200, after = null, wait = null, ...answer } = await reply(request.body, options.signal);
  await wait;
  return { ok: status < 400, json: async () => answer,
    headers: { get: (name) => (name === "Retry-After" ? after : null) } };
}

function Option(text = "", value = String(text)) { // as in a browser: new Option(text, value)
  const made = document.createElement("option");
  made.textContent = String(text);
  made.setAttribute("value", value);
  return made;
}

open(process.argv[2], { answers: respond, Option });
const part = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const pairs = () => all("#pairs > li");
const standing = () => textOf(part("standing"));
const said = () => textOf(part("said"));
const isProblem = () => part("said").classList.contains("problem");
const isBusy = () => part("target").getAttribute("aria-busy");
const marked = (side) => all(`.${side} .marked`).map(textOf);
const best = (text, alignment, score = -0.12345) => ({ text, score, alignment });
async function type(text, milliseconds = 250) {
  part("source").value = text;
  tell(part("source"), "input");
  pass(milliseconds);
  await settled();
}

test("the page waits until the server answers, and looks every five seconds", async () => {
  await settled();
  assert.match(standing(), /does not answer/);
  down = false;
  part("source").value = "déjà"; // as a browser restores it
  pass(4900);
  await settled();
  assert.equal(looks.length, 0);
  pass(100);
  await settled();
  assert.equal(looks.length, 1);
  assert.equal(standing(), "step-00000300");
  assert.ok(document.activeElement === part("source"));
  pass(0);
  await settled();
  assert.deepEqual(asked.map(({ body }) => body.sentences), [["déjà"]]);
  asked.length = 0;
  await type("");
  assert.equal(asked.length, 0); // there is nothing to translate
  assert.equal(part("empty").hidden, false);
  pass(5000);
  await settled();
  assert.equal(looks.length, 2);
  assert.equal(all("#run option").length, 2); // each run once
});

test("the standing follows the run's checkpoints", async () => {
  const later = async (changes) => {
    Object.assign(listed[0], changes);
    pass(5000);
    await settled();
    return standing();
  };
  assert.equal(await later({ checkpoints: ["a", "b"] }), "a, b");
  assert.match(await later({ damaged: ["c"] }), /^a, b · .*damaged/);
  assert.equal(await later({ ready: false, damaged: [] }), "not ready");
  down = true;
  assert.match(await later({}), /does not answer/);
  down = false;
  assert.equal(await later({ ready: true, checkpoints: ["step-00000300"] }), "step-00000300");
});

test("a run has its languages and its number of translations", () => {
  assert.deepEqual(all("#run option").map(textOf), ["phrases (fr → en)", "psalms (ar-EG → he)"]);
  assert.deepEqual([part("source").lang, part("source").dir], ["fr", "ltr"]);
  assert.equal(textOf(part("source-name")), "Source (fr)");
  assert.equal(textOf(part("target-name")), "Translation (en)");
  assert.deepEqual(all("#n-best option").map(textOf), ["1", "2", "3", "4"]);
  assert.equal(part("n-best").value, "1");
});

test("typed text is translated after a pause, a sentence per line", async () => {
  reply = ({ sentences }) => ({ translations: sentences.map((text) => [best(text.toUpperCase(), [[0, 1], [1, 0]])]) });
  part("source").value = "un";
  tell(part("source"), "input");
  pass(200);
  part("source").value = "  un deux  \n\n trois";
  tell(part("source"), "input");
  pass(200);
  await settled();
  assert.equal(asked.length, 0); // the pause begins again
  pass(50);
  await settled();
  assert.deepEqual(asked.map(({ body }) => body), [{ sentences: ["un deux", "trois"], n_best: 1, alignments: true,
    tag: null }]);
  assert.equal(asked[0].path, "runs/phrases/translate");
  assert.deepEqual([asked[0].options.method, asked[0].options.headers["Content-Type"]], ["POST", "application/json"]);
  assert.equal(pairs().length, 2);
  assert.deepEqual(all("p.source").map(textOf), ["un deux", "trois"]);
  assert.deepEqual(all("p.best").map(textOf), ["UN DEUX", "TROIS"]);
  assert.deepEqual(all(".score").map(textOf), ["-0.123", "-0.123"]);
  assert.deepEqual(all(".word", pairs()[0]).map(textOf), ["un", "deux", "UN", "DEUX"]);
  assert.ok(part("empty").hidden);
  assert.equal(isBusy(), "false");
  assert.equal(all(".others").length, 0);
  assert.deepEqual(all("p.best, p.source", pairs()[0]).map((line) => [line.lang, line.dir]),
    [["fr", "ltr"], ["en", "ltr"]]);
});

test("pointing at a word marks it and its aligned words", () => {
  const [un, deux, UN] = all(".word", pairs()[0]);
  un.onpointerenter();
  assert.deepEqual([marked("source"), marked("best")], [["un"], ["DEUX"]]);
  UN.onpointerenter();
  assert.deepEqual([marked("source"), marked("best")], [["deux"], ["UN"]]);
  deux.onpointerenter();
  assert.deepEqual([marked("source"), marked("best")], [["deux"], ["UN"]]);
  deux.onpointerleave();
  assert.equal(all(".marked").length, 0);
});

const group = (n = 0) => pairs()[n].firstElementChild;

test("arrow keys move over the words of a translation, and say what they are aligned with", async () => {
  reply = () => ({ translations: [[best("A B C", [[0, 0], [2, 0], [1, 1]])]] });
  await type("un deux trois");
  const item = group();
  assert.deepEqual([item.getAttribute("role"), item.getAttribute("tabindex")], ["group", "0"]);
  assert.equal(item.getAttribute("aria-label"), "A B C, from un deux trois");
  const go = (key) => {
    assert.equal(press(item, key), false); // the page does not scroll
    return [marked("best").join(), marked("source").join(), said()];
  };
  assert.deepEqual(go("ArrowRight"), ["A", "un,trois", "A ← un trois"]);
  assert.deepEqual(go("ArrowRight"), ["B", "deux", "B ← deux"]);
  assert.deepEqual(go("ArrowRight").slice(0, 2), ["C", ""]);
  assert.equal(said(), "C ← no word");
  assert.equal(go("ArrowRight")[0], "C");
  assert.equal(go("ArrowLeft")[0], "B");
  assert.equal(go("ArrowLeft")[0], "A");
  assert.equal(go("ArrowLeft")[0], "A");
  assert.equal(press(item, "ArrowDown"), true);
  assert.equal(marked("best").join(), "A");
  item.blur();
  assert.equal(all(".marked").length, 0);
  assert.equal(go("ArrowLeft")[0], "C"); // from the end
  item.blur();
});

test("several translations are shown with their scores", async () => {
  reply = ({ n_best: count }) => ({ translations: [Array.from({ length: count }, (_, n) => best(`t${n}`, null, -n))] });
  const before = asked.length;
  fill(part("n-best"), "3");
  pass(0);
  await settled();
  assert.equal(asked.length, before + 1);
  assert.equal(asked.at(-1).body.n_best, 3);
  assert.deepEqual(all(".others li").map(textOf), ["t1 -1.000", "t2 -2.000"]);
  all(".word", group())[0].onpointerenter();
  assert.deepEqual([marked("source"), marked("best")], [["un"], []]); // without an alignment
});

test("a tag is sent with the text", async () => {
  part("tag").value = " formal ";
  tell(part("tag"), "input");
  pass(250);
  await settled();
  assert.equal(asked.at(-1).body.tag, "formal");
  part("tag").value = "";
});

test("a newer text aborts the request before, whose late answer is not shown", async () => {
  const late = Promise.withResolvers();
  const signals = [];
  reply = ({ sentences }, signal) => {
    signals.push(signal);
    return { translations: [[best(sentences[0])]], wait: sentences[0] === "old" ? late.promise : null };
  };
  await type("old");
  assert.equal(isBusy(), "true");
  await type("new");
  assert.deepEqual(signals.map(({ aborted }) => aborted), [true, false]);
  assert.equal(isBusy(), "false");
  late.resolve();
  await settled();
  assert.deepEqual(all("p.best").map(textOf), ["new"]);
  reply = () => { throw Object.assign(new Error("aborted"), { name: "AbortError" }); };
  await type("again");
  assert.doesNotMatch(said(), /answer/);
  assert.equal(isBusy(), "true"); // the newer request is under way
});

test("a refusal is shown, and repeated after the time that the server asks for", async () => {
  reply = () => ({ status: 503, problem: "all replicas are busy", after: "2" });
  await type("trop");
  assert.equal(said(), "all replicas are busy");
  assert.ok(isProblem());
  assert.equal(isBusy(), "false");
  const before = asked.length;
  reply = ({ sentences }) => ({ translations: [[best(sentences[0])]] });
  pass(1900);
  await settled();
  assert.equal(asked.length, before);
  pass(100);
  await settled();
  assert.equal(asked.length, before + 1);
  assert.equal(said(), "");
  assert.ok(!isProblem());
  reply = () => ({ status: 400, problem: "too long", after: null });
  await type("trop long");
  assert.equal(said(), "too long");
  const refused = asked.length;
  pass(60_000);
  await settled();
  assert.equal(asked.length, refused);
});

test("a server that does not answer is a problem until the text is translated", async () => {
  reply = () => { throw new TypeError("failed"); };
  await type("rien");
  assert.match(said(), /does not answer/);
  assert.ok(isProblem());
  assert.equal(isBusy(), "false");
  reply = ({ sentences }) => ({ translations: [[best(sentences[0])]] });
  await type("bien");
  assert.equal(said(), "");
});

test("without text there is no translation", async () => {
  reply = () => ({ status: 400, problem: "too long" });
  await type("x");
  const before = asked.length;
  await type(" \n ");
  assert.equal(asked.length, before);
  assert.equal(pairs().length, 0);
  assert.equal(part("empty").hidden, false);
  assert.equal(said(), "");
  assert.equal(isBusy(), "false");
});

test("another run translates the same text, in its direction of writing", async () => {
  reply = ({ sentences }) => ({ translations: [[best(sentences[0], [[0, 0]])]] });
  await type("un deux");
  const before = looks.length;
  fill(part("run"), "psalms");
  pass(0);
  await settled();
  assert.equal(asked.at(-1).path, "runs/psalms/translate");
  assert.equal(asked.at(-1).body.n_best, 3); // the choice is kept
  assert.equal(looks.length, before + 1);
  assert.deepEqual([part("source").lang, part("source").dir], ["ar-EG", "rtl"]);
  assert.equal(all("#n-best option").length, 10);
  assert.deepEqual([all("p.best")[0].dir, all("p.best")[0].lang], ["rtl", "he"]);
  press(group(), "ArrowLeft"); // forwards
  assert.equal(said(), "un ← un");
  press(group(), "ArrowLeft");
  assert.match(said(), /^deux ← /);
  press(group(), "ArrowRight");
  assert.match(said(), /^un ← /);
});

test("Enter in a setting does not leave the page", () => {
  assert.equal(tell(part("settings"), "submit"), false);
});
