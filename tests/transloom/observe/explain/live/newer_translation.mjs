// The page of a translation model with rotated queries and keys, RMS norms, gates and grouped heads, whose
// tokenizer has a tag and which was trained without dropout.

import assert from "node:assert/strict";
import { test } from "node:test";

import { fill, textOf } from "../../../../support/page_in_node.mjs";
import { testNumbers } from "./numbers.mjs";
import { atOnce, openedPage } from "./opened_page.mjs";
import { testTokenizers } from "./tokenizers.mjs";
import { testTraining } from "./training.mjs";

let tagId = 0;
const page = await openedPage((packed, html) => {
  for (const tokenizer of packed.tokenizers) {
    const lengths = tokenizer.pieces.map(({ length }) => length);
    tagId = lengths.indexOf(Math.max(...lengths)); // a long word, which is in no sentence below
    tokenizer.types = `${tokenizer.types.slice(0, tagId)}c${tokenizer.types.slice(tagId + 1)}`;
    tokenizer.pieces[tagId] = "<2de>";
  }
  Object.assign(packed.training, { label_smoothing: 0, dropout: 0 });
  packed.training.pairs = [];
  return html.replace('data-tag=""', 'data-tag="&lt;2de>"').replace('<figure class="flow-figure"',
    '<p data-first="other">another model</p>$&');
});
const { document, of, model, part, settled, made } = page;
const { NOTHING_SWITCHED } = of("forward");
const SENTENCE = model.sentence;
const resultOf = (sentence, tag = null) => atOnce(of("computing").computeSentenceSlices(model, sentence, tag,
  NOTHING_SWITCHED));
const own = resultOf(SENTENCE);
const pieces = () => [...part("pieces").children].map((one) => [textOf(one.querySelector("b")),
  textOf(one.querySelector("span"))]);

test("a tag that the reader chooses stands in front of the sentence", async () => {
  assert.ok(tagId > 3);
  assert.equal(part("tag-label").hidden, false);
  assert.deepEqual([...part("tag").options].map(textOf), ["none", "<2de>"]);
  assert.equal(part("tag").value, "<2de>"); // that of the command
  const other = document.querySelector("[data-first=other]");
  assert.equal(other.hidden, false);
  const tagged = resultOf(SENTENCE, "<2de>");
  assert.deepEqual(tagged.ids, [tagId, ...own.ids]);
  assert.deepEqual(pieces()[0], ["<2de>", " the tag"]);
  assert.equal(pieces().slice(1).map(([, about]) => /^“(.*)”/.exec(about)?.[1] ?? "").join(""),
    SENTENCE.replaceAll(" ", "␣"));
  assert.equal(made(), tagged.translation);
  fill(part("tag"), "");
  await settled();
  assert.equal(other.hidden, true); // it is of the sentence with its tag
  assert.equal(made(), own.translation);
  assert.equal(pieces().length, own.ids.length);
  assert.equal(document.querySelector(".stale"), null);
});

test("rotated positions have their own switch", () => {
  const labels = [...part("switches").querySelectorAll("label")].map((one) => textOf(one).trim());
  assert.equal(labels[0], "queries and keys are rotated by their position");
});

testTraining(page, own);
testTokenizers(page);
testNumbers(page, own, { ...NOTHING_SWITCHED, headsOff: new Set(["decoder.1.cross_attention.1"]),
  residualsOff: new Set(["encoder.0.feed_forward"]), positions: false, scaledScores: false, mask: false });
