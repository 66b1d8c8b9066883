// The page of a language model: a user types texts, and samples.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, press, textOf, until } from "../../../../support/page_in_node.mjs";
import { testNumbers } from "./numbers.mjs";
import { atOnce, choose, close, explained, isWritten, logSoftmax, openedPage, rowOf } from "./opened_page.mjs";
import { testTokenizers } from "./tokenizers.mjs";

const page = await openedPage((packed) => { packed.examples = ["a dog", "the"]; });
const { document, of, model, packed, type, settled, stateText } = page;
const { bos_id, eos_id } = model.vocabulary;
const TEXT = model.text;
const tokenizer = model.target;
const isLearned = model.config.positions === "learned";
const resultOf = (text, sampling = null) => atOnce(of("texts").computeTextSlices(model, text, sampling));
const own = resultOf(TEXT);
const origin = () => document.querySelector("[data-live=origin]");
const inputs = () => Object.fromEntries(["temperature", "top_k", "top_p"].map((name) =>
  [name, document.querySelector(`input[name=${name}]`)]));
const seed = () => document.querySelector('select[aria-label="seed"]');

test("the page's text is continued at once", () => {
  assert.equal(page.made(), explained.continuation);
  assert.match(stateText(), /type any text\. Computed in \d+ ms\.$/);
  assert.equal(document.querySelector(".stale"), null);
  assert.deepEqual([...document.querySelectorAll("[data-first=examples] button")].map(textOf), [TEXT, "the", "a dog"]);
});

// The pieces that follow a text by the definition of greedy search or sampling: a full pass for each.
function followed(text, sampling) {
  const ids = [bos_id, ...tokenizer.encode(text).map(({ id }) => id)];
  const prompt = isLearned ? ids : ids.slice(-model.context);
  const chosen = [];
  while (chosen.length < packed.steps && chosen.at(-1) !== eos_id) {
    const { output_tm } = atOnce(of("forward").readSlices(model, [...prompt, ...chosen]));
    const logits_tv = atOnce(of("forward").logitsSlices(model, output_tm));
    const logits = rowOf(logits_tv, prompt.length + chosen.length - 1);
    const order = logits.map((logit, id) => ({ logit, id })).sort((a, b) => b.logit - a.logit);
    if (!sampling) {
      chosen.push(order[0].id);
      continue;
    }
    const { temperature, top_k, top_p, seed: drawn } = sampling;
    const some = order.slice(0, top_k || order.length);
    const shares = logSoftmax(some.map(({ logit }) => logit / temperature)).map(Math.exp);
    let count = 0;
    for (let sum = 0; count < some.length && (count === 0 || sum < top_p); count++) sum += shares[count];
    const whole = shares.slice(0, count).reduce((a, b) => a + b);
    let left = packed.draws[drawn][chosen.length] * whole;
    const place = shares.slice(0, count).findIndex((share) => (left -= share) < 0);
    chosen.push(some[place < 0 ? count - 1 : place].id);
  }
  return chosen;
}

test("each piece that follows is the most probable one", async () => {
  for (const text of ["a dog", "", "  the  cat\n"]) {
    await type(text);
    const chosen = followed(text, null);
    assert.equal(page.made(), tokenizer.decode(chosen) || "(nothing)");
    assert.deepEqual(resultOf(text).chosen, chosen);
  }
  const bias = model.weights["target_embedding.weight"];
  const row = of("tensors").row(bias, eos_id);
  const untouched = row.slice();
  row.set(of("tensors").row(own.stack.output_tm, own.given - 1).map((one) => 3 * one)); // the end follows at once
  await type(TEXT);
  assert.deepEqual(resultOf(TEXT).chosen, followed(TEXT, null));
  assert.ok(resultOf(TEXT).chosen.length < packed.steps);
  row.set(untouched);
  await type(TEXT);
});

test("sampling follows the settings and the seed", async () => {
  const cases = [{ temperature: 1, top_k: 0, top_p: 1, seed: 0 }, { temperature: 2.5, top_k: 3, top_p: 1, seed: 5 },
    { temperature: 0.8, top_k: 0, top_p: 0.5, seed: 5 }, { temperature: 30, top_k: 9, top_p: 0.95, seed: 31 },
    { temperature: 5, top_k: 1, top_p: 0.001, seed: 2 }];
  location.hash = "#box-decoder.softmax"; // the controls are beside the softmax
  await until(() => inputs().temperature);
  assert.equal(inputs().temperature.value, "0");
  assert.deepEqual([inputs().top_k.value, inputs().top_p.value, seed().value],
    [model.decoding.top_k, model.decoding.top_p, model.decoding.seed].map(String));
  assert.equal(seed().options.length, Object.keys(packed.draws).length);
  const seen = new Set();
  for (const sampling of cases) {
    for (const name of ["temperature", "top_k", "top_p"]) {
      fill(inputs()[name], String(sampling[name]));
    }
    fill(seed(), String(sampling.seed));
    await settled();
    const chosen = followed(TEXT, sampling);
    assert.equal(page.made(), tokenizer.decode(chosen), JSON.stringify(sampling));
    const { draws } = resultOf(TEXT, sampling);
    draws.forEach(({ id, uniform, kept, sum, probability }, n) => {
      assert.equal(id, chosen[n]);
      assert.equal(uniform, packed.draws[sampling.seed][n]);
      assert.ok(kept.length <= (sampling.top_k || Infinity));
      close(kept.at(-1).sum, kept.reduce((total, one) => total + one.probability, 0), "sum");
      assert.ok(kept.length === 1 || kept.at(-2).sum < sampling.top_p);
      assert.ok(sum - probability <= uniform * kept.at(-1).sum && uniform * kept.at(-1).sum < sum);
    });
    seen.add(page.made());
  }
  assert.ok(seen.size > 3);
  fill(inputs().temperature, "0"); // greedy again
  await settled();
  assert.equal(page.made(), explained.continuation);
});

test("settings that are none change nothing, and what is changed keeps the focus", async () => {
  for (const [name, value] of [["temperature", "-1"], ["temperature", "11"], ["top_k", "-1"], ["top_p", "0"],
    ["top_p", "1.5"], ["top_k", ""]]) {
    const before = inputs()[name].value;
    fill(inputs()[name], value);
    assert.equal(document.querySelector("[aria-busy]"), null, `${name} ${value}`);
    fill(inputs()[name], before);
    await settled();
  }
  inputs().top_k.focus();
  fill(inputs().top_k, "4");
  await settled();
  assert.equal(document.activeElement, inputs().top_k);
  assert.ok(inputs().top_k.isConnected);
  fill(inputs().top_k, "0");
  await settled();
});

test("a text beyond the context is read from its end, or refused where positions are learned", async () => {
  const long = "the cat ".repeat(9);
  const count = tokenizer.encode(long).length + 1;
  assert.ok(count > model.context);
  if (isLearned) {
    fill(page.box, long);
    const most = model.context - packed.steps;
    await until(() => stateText().includes(`These are ${count} pieces, but the page takes ${most}: shorten the text`));
    assert.ok(stateText().includes(`“${TEXT}”`));
    assert.ok(document.querySelector("[data-first=flow]").classList.contains("stale"));
    const fits = long.slice(0, most - 1);
    await type(fits);
    assert.equal(resultOf(fits).given, most);
    assert.equal(page.made(), tokenizer.decode(followed(fits, null)));
  } else {
    await type(long);
    const found = resultOf(long);
    assert.equal(page.made(), tokenizer.decode(followed(long, null)));
    assert.deepEqual([found.is_cut, found.given], [true, model.context]);
    assert.equal(resultOf(TEXT).is_cut, false);
    const texts = tokenizer.encode(long).map(({ id }) => tokenizer.pieces[id]).slice(-model.context);
    assert.deepEqual(found.shown.slice(0, model.context), texts);
    fill(page.box, "a".repeat(model.context - 1));
    assert.equal(resultOf(page.box.value).is_cut, false);
  }
  await type(TEXT);
});

test("unknown characters are shown with their piece", () => {
  const { shown, ids } = resultOf("a 漢字b");
  const unknown = tokenizer.described.unk_id;
  const expected = ids.slice(0, 1 + tokenizer.encode("a 漢字b").length).map((id) =>
    (id === unknown ? `漢字 (${tokenizer.pieces[id]})` : tokenizer.pieces[id]));
  assert.ok(expected.some((text) => text.includes("漢字")));
  assert.deepEqual(shown.slice(0, expected.length), expected);
  assert.deepEqual(shown.slice(expected.length), ids.slice(expected.length).map((id) => tokenizer.pieces[id]));
});

test("a number of a map opens its origin, and a new text closes it", async () => {
  location.hash = `#${document.querySelectorAll("main > section.drawn")[1].id}`;
  const figure = await until(() => document.querySelector("main > section.drawn figure.map"));
  await choose(figure, 0, 1);
  assert.equal(origin().parentElement, figure);
  isWritten(textOf(origin().querySelector("p.value")), figure.map.values[0][1]);
  assert.equal(document.activeElement, origin());
  const title = textOf(origin().querySelector("h3"));
  click(origin().querySelector("button.number") ?? origin());
  press(figure.querySelector(".grid"), "Enter");
  assert.ok(title);
  await type("a dog");
  assert.equal(origin()?.hidden ?? true, true);
  await type(TEXT);
});

test("weights that are no numbers are said to be none", async () => {
  const norm = Object.entries(model.weights).find(([name]) => name.includes("norm"))[1].data;
  const untouched = norm.slice();
  norm.fill(NaN);
  fill(page.box, "a dog");
  await until(() => stateText().includes("NaN"));
  assert.ok(document.querySelector("[data-first=flow]").classList.contains("stale"));
  norm.set(untouched);
  await type(TEXT);
});

if (isLearned) testTokenizers(page);
testNumbers(page, own);
