// The page of a masked model: a user hides words, which the model predicts.

import assert from "node:assert/strict";
import { test } from "node:test";

import { fill, textOf, until } from "../../../../support/page_in_node.mjs";
import { testNumbers } from "./numbers.mjs";
import { atOnce, choose, explained, isWritten, openedPage, rowOf } from "./opened_page.mjs";

const page = await openedPage((packed) => { packed.examples = ["a [MASK]"]; });
const { document, of, model, packed, type, settled, stateText } = page;
const { bos_id, eos_id } = model.vocabulary;
const { target: tokenizer, mask, takes_pairs: takesPairs } = model;
const TEXT = model.text;
const resultOf = (text) => atOnce(of("texts").computeTextSlices(model, text));
const own = resultOf(TEXT);
const idsOf = (text) => tokenizer.encode(text).map(({ id }) => id);
const origin = () => document.querySelector("[data-live=origin]");

test("the page's text is filled in at once", () => {
  assert.equal(page.made(), explained.filled);
  assert.match(stateText(), /type any text with \[MASK\]\. Computed in \d+ ms\.$/);
  assert.equal(document.querySelector("input[name=temperature]"), null); // nothing is sampled
  assert.deepEqual(own.positions, explained.positions);
  assert.equal(own.is_pair, explained.is_pair);
  assert.equal(document.querySelector(".stale"), null);
});

test("each [MASK] is one piece, and spaces around it are the text's own", () => {
  const read = (text) => resultOf(text).ids;
  assert.deepEqual(read("[MASK]"), [bos_id, mask, eos_id]);
  assert.deepEqual(read("a [MASK] b"), [bos_id, ...idsOf("a "), mask, ...idsOf(" b"), eos_id]);
  assert.deepEqual(read("[MASK][MASK]b"), [bos_id, mask, mask, ...idsOf("b"), eos_id]);
  assert.deepEqual(read(" [MASK]"), [bos_id, ...idsOf(" "), mask, eos_id]);
  const { places, ids } = resultOf("a [MASK] b[MASK]");
  assert.deepEqual(places, ids.flatMap((id, n) => (id === mask ? [n] : [])));
});

test("each hidden piece becomes the most probable one that is not special", () => {
  for (const text of ["the [MASK]", "[MASK] [MASK] cat ", "a[MASK]c"]) {
    const { ids, places, probabilities_tv, made } = resultOf(text);
    const filled = [...ids];
    places.forEach((place, n) => {
      const shares = rowOf(probabilities_tv, n);
      packed.special.forEach((id) => { shares[id] = -1; });
      filled[place] = shares.indexOf(Math.max(...shares));
    });
    assert.equal(made, tokenizer.decode(filled));
    assert.ok(packed.special.length > 3 && packed.special.includes(mask));
  }
});

if (takesPairs) test("both sides of a pair have their own beginning, positions and segment", async () => {
  const sides = (text) => {
    const { ids, positions, stack: { segments }, is_pair, made } = resultOf(text);
    return { ids, positions, segments, is_pair, made };
  };
  const [one, other] = [[bos_id, ...idsOf("a"), mask, eos_id], [bos_id, ...idsOf("b c"), eos_id]];
  const both = { ids: [...one, ...other], positions: [...one.keys(), ...other.keys()],
    segments: [...one.map(() => 0), ...other.map(() => 1)], is_pair: true };
  const found = sides("a[MASK]  |||   b c");
  assert.match(found.made, /^a. \|\|\| b c$/u);
  assert.deepEqual({ ...found, made: undefined }, { ...both, made: undefined });
  const second = sides("||| [MASK]");
  assert.deepEqual([second.ids, second.segments, second.is_pair], [[bos_id, mask, eos_id], [1, 1, 1], false]);
  const first = sides("[MASK] |||");
  assert.deepEqual([first.ids, first.segments, first.is_pair], [[bos_id, mask, eos_id], [0, 0, 0], false]);
  fill(page.box, "a ||| [MASK] ||| b");
  await until(() => stateText().includes("||| 2 times"));
  assert.ok(stateText().includes(`“${TEXT}”`));
  const long = "x".repeat(model.context - 3);
  assert.equal(resultOf(`[MASK]${long} ||| [MASK]${long}`).ids.length, 2 * model.context);
  assert.throws(() => resultOf(`[MASK] ||| [MASK]${long}x`),
    new RegExp(`${model.context + 1} pieces.*takes ${model.context}`));
  await type(TEXT);
}); else test("bars between sides are text, where the model takes no pairs", () => {
  assert.deepEqual(resultOf("a ||| [MASK]").ids, [bos_id, ...idsOf("a ||| "), mask, eos_id]);
});

test("a text without [MASK], or with too many pieces, is refused", async () => {
  fill(page.box, "no hidden word");
  await until(() => stateText().startsWith("Write [MASK] in place of a word"));
  assert.ok(document.querySelector("[data-first=flow]").classList.contains("stale"));
  assert.ok(stateText().endsWith(`those of “${TEXT}”.`));
  const most = model.context - 3; // beside the mask, the beginning and the end
  assert.equal(resultOf(`[MASK]${"a".repeat(most)}`).ids.length, model.context);
  fill(page.box, `[MASK]${"a".repeat(most + 1)}`);
  await until(() => stateText().includes(
    `These are ${model.context + 1} pieces, but the page takes ${model.context}: shorten the text`));
  await type("a [MASK]");
  assert.equal(page.made(), resultOf("a [MASK]").made);
  assert.equal(document.querySelector(".stale"), null);
  await type(TEXT);
});

test("a number of a map opens its origin, and a new text closes it", async () => {
  location.hash = `#${document.querySelectorAll("main > section.drawn")[1].id}`;
  const figure = await until(() => document.querySelector("main > section.drawn figure.map"));
  await choose(figure, 0, 1);
  assert.equal(origin().parentElement, figure);
  isWritten(textOf(origin().querySelector("p.value")), figure.map.values[0][1]);
  await type("a [MASK]");
  assert.equal(origin()?.hidden ?? true, true);
  await type(TEXT);
});

test("weights that are no numbers are said to be none", async () => {
  const { data } = model.weights["head.norm.weight"];
  const untouched = data.slice();
  data.fill(NaN);
  fill(page.box, "[MASK]");
  await until(() => stateText().includes("NaN"));
  data.set(untouched);
  await type(TEXT);
  await settled();
});

// A tokenizer that drops spaces at the ends and puts one in front of each text, as SentencePiece's usually do.
test("where pieces include the space before a word, [MASK] takes the place of the space, too", () => {
  const { SentencePiece } = of("pieces");
  const made = (pieces, normaliser) => new SentencePiece({ pieces: ["<unk>", "<s>", "</s>", "<mask>", ...pieces],
    types: `uccc${"n".repeat(pieces.length)}`, scores: [0, 0, 0, 0, ...pieces.map(({ length }) => -1 / length)],
      unk_id: 0,
    unknown_text: null, verbatim: false, type: "bpe", normaliser: { dummy_prefix: true, extra_spaces: false,
      escape_spaces: true, space_as_suffix: false, ...normaliser } }, new Uint8Array(0));
  // The page's model reads and predicts the first pieces as those of another tokenizer.
  const resultWith = (tokens, text) => atOnce(of("texts").computeTextSlices({ ...model, target: tokens, mask: 3,
    vocabulary: { pad_id: 0, bos_id: 1, eos_id: 2 },
    special: [...tokenizer.pieces.keys()].filter((id) => id < 4 || id >= tokens.pieces.length) }, text));
  const read = (text, tokens) => resultWith(tokens, text).ids.map((id) => tokens.pieces[id]).slice(1, -1);
  const drops = made(["▁", "a", "b", "▁a", "▁b"], {});
  assert.deepEqual(read("a [MASK] b", drops), ["▁a", "<mask>", "▁b"]);
  assert.deepEqual(read("a [MASK]b", drops), ["▁a", "<mask>", "▁b"]);
  const letters = made(["▁", "a", "b"], {});
  assert.deepEqual(read("a [MASK]b", letters), ["▁", "a", "<mask>", "b"]); // no space that the text does not have
  assert.deepEqual(read("a [MASK] b", letters), ["▁", "a", "<mask>", "▁", "b"]);
  assert.deepEqual(read("b[MASK]", letters), ["▁", "b", "<mask>"]);
  const keeps = { dummy_prefix: false, extra_spaces: true };
  const joined = made(["▁", "a", "b", "▁a", "▁b"], keeps);
  assert.deepEqual(read("a [MASK] b", joined), ["a", "<mask>", "▁b"]);
  assert.deepEqual(read("a  [MASK] ", joined), ["a", "▁", "<mask>", "▁"]);
  const single = made(["▁", "a", "b"], keeps);
  assert.deepEqual(read("a [MASK] b", single), ["a", "▁", "<mask>", "▁", "b"]);
  assert.deepEqual(read("[MASK] ", drops), ["<mask>"]);
  const { made: whole } = resultWith(drops, "a [MASK] ");
  assert.equal(whole, whole.trim());
  assert.equal(resultWith(joined, " a[MASK] ").made.at(0), " ");
});

testNumbers(page, own);
