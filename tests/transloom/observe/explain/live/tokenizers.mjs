// Tests for the tokenizers in a page: small ones whose segmentations follow from their definition.

import assert from "node:assert/strict";
import { test } from "node:test";

const NORMALISER = { dummy_prefix: true, extra_spaces: false, escape_spaces: true, space_as_suffix: false };

// Random numbers in [0, 1), the same in each run.
function randomNumbers(seed) {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

export function testTokenizers({ of, model }) {
  const { SentencePiece } = of("pieces");
  const { Normaliser, utf8, longestPrefix } = of("normaliser");

  // `pieces`: [piece, type, score]; the first one is the unknown piece.
  function tokenizer(pieces, { normaliser = {}, ...more } = {}) {
    const all = [["<unk>", "u", 0], ...pieces];
    return new SentencePiece({ pieces: all.map(([piece]) => piece), types: all.map(([, type]) => type).join(""),
      scores: all.map(([, , score = 0]) => score), unk_id: 0, unknown_text: null, verbatim: false, type: "bpe",
      normaliser: { ...NORMALISER, ...normaliser }, ...more }, new Uint8Array(0));
  }
  const split = (made, text) => made.encode(text).map(({ id }) => made.pieces[id]);
  const surfaces = (made, text) => made.encode(text).map(({ start, end }) => text.slice(start, end));

  test("BPE joins the pair with the best score, of equal ones the first, until none is left", () => {
    const random = randomNumbers(5);
    const letters = "abc▁";
    const joined = Array.from({ length: 40 }, () => Array.from({ length: 2 + Math.floor(3 * random()) },
      () => letters[Math.floor(4 * random())]).join(""));
    const multi = [...new Set(joined)].map((piece) => [piece, "n", -Math.floor(12 * random())]);
    const made = tokenizer([...[...letters].map((one) => [one, "n", -50]), ...multi]);
    const scoreOf = new Map(multi.map(([piece, , score]) => [piece, score]));
    const expected = (text) => {
      const symbols = [...`▁${text}`];
      for (;;) {
        const scores = symbols.slice(1).map((right, n) => scoreOf.get(symbols[n] + right) ?? -Infinity);
        const best = Math.max(...scores, -Infinity);
        if (best === -Infinity) return symbols;
        const at = scores.indexOf(best);
        symbols.splice(at, 2, symbols[at] + symbols[at + 1]);
      }
    };
    const seen = new Set();
    for (let n = 0; n < 300; n++) {
      const text = Array.from({ length: 1 + Math.floor(9 * random()) }, () => letters[Math.floor(3 * random())]).join(
        "");
      assert.deepEqual(split(made, text), expected(text), text);
      assert.equal(surfaces(made, text).join(""), text);
      expected(text).forEach((piece) => seen.add(piece.length));
    }
    assert.ok(seen.size > 2);
  });

  test("BPE takes unused pieces apart again, and leaves user-defined ones whole", () => {
    const pieces = [["▁", "n", -9], ["a", "n", -9], ["b", "n", -9], ["c", "n", -9], ["d", "n", -9],
      ["ab", "x", -1], ["abc", "n", -2], ["cd", "x", -3], ["bcd", "x", -4], ["da", "d"], ["aa", "n", -1]];
    const made = tokenizer(pieces);
    assert.deepEqual(split(made, "abc"), ["▁", "abc"]);
    assert.deepEqual(split(made, "ab"), ["▁", "a", "b"]);
    assert.deepEqual(split(made, "bcd"), ["▁", "b", "c", "d"]);
    assert.deepEqual(split(made, "aada"), ["▁", "aa", "da"]);
    assert.deepEqual(split(made, "daa"), ["▁", "da", "a"]); // not joined with its neighbour
    assert.deepEqual(surfaces(made, "adaabc"), ["", "a", "da", "abc"]);
    assert.deepEqual(split(made, ""), []);
  });

  const unknownBrute = (made, text, pieces) => {
    const scores = new Map(pieces.filter(([, type]) => type !== "x").map(([piece, type, score]) =>
      [piece, { type, score }]));
    const normal = pieces.filter(([, type]) => type === "n").map(([, , score]) => score);
    const greatest = Math.max(2 ** -126, ...normal);
    const scoreOf = (part) => {
      const one = scores.get(part);
      if (one) return one.type === "d" ? Buffer.byteLength(part) * greatest - 0.1 : one.score;
      return [...part].length === 1 ? Math.min(...normal) - 10 : -Infinity;
    };
    const ways = (rest) => (rest.length ? rest.flatMap((_, n) => {
      const part = rest.slice(0, n + 1).join("");
      const score = scoreOf(part);
      return score === -Infinity ? [] : ways(rest.slice(n + 1)).map((way) => ({ parts: [part, ...way.parts],
        score: score + way.score }));
    }) : [{ parts: [], score: 0 }]);
    return ways([...text]).reduce((best, way) => (way.score > best.score ? way : best));
  };

  for (const greatest of [-1, 3]) test(
    `unigram takes the segmentation with the largest sum (scores up to ${greatest})`, () => {
    const random = randomNumbers(11 + greatest);
    const letters = "abcé";
    const multi = [...new Set(Array.from({ length: 22 }, () => Array.from({ length: 2 + Math.floor(3 * random()) },
      () => letters[Math.floor(4 * random())]).join("")))];
    const pieces = [["▁", "n", greatest - 2 * random()], ["a", "n", -3.25], ["b", "n", -4.5],
      ...multi.map((piece, n) => [piece, n % 7 === 3 ? "x" : n % 7 === 5 ? "d" : "n", greatest - 22 * random()])];
    const made = tokenizer(pieces, { type: "unigram" });
    let unknown = 0;
    for (let n = 0; n < 150; n++) {
      const text = Array.from({ length: 1 + Math.floor(8 * random()) }, () => letters[Math.floor(4 * random())]).join(
        "");
      const { parts } = unknownBrute(made, `▁${text}`, pieces);
      const names = parts.map((part) => (made.segments.has(part) && made.types[made.segments.get(part)] !== "x" ? part
        : "<unk>"));
      // one after another are one
      const expected = names.filter((name, m) => name !== "<unk>" || names[m - 1] !== "<unk>");
      assert.deepEqual(split(made, text), expected, text);
      assert.equal(surfaces(made, text).join(""), text);
      unknown += names.includes("<unk>");
    }
    assert.ok(unknown > 10);
  });

  test("characters are pieces of their own; special ones too, where they are written out", () => {
    const made = tokenizer([["</s>", "c"], ["▁", "n"], ["a", "n"], ["é", "n"], ["🙂", "n"], ["<x>", "d"], ["<xy", "d"]],
      { type: "char" });
    assert.deepEqual(split(made, "aé <x>🙂b"), ["▁", "a", "é", "▁", "<x>", "🙂", "<unk>"]);
    assert.deepEqual(surfaces(made, "aé <x>🙂b"), ["", "a", "é", " ", "<x>", "🙂", "b"]);
    assert.deepEqual(split(made, "<x"), ["▁", "<unk>"]);
    assert.deepEqual(split(made, "<xya"), ["▁", "<xy", "a"]);
    assert.equal(made.idOf("</s>"), 1);
    assert.equal(made.idOf("a"), 3);
    assert.equal(made.idOf("zz"), 0);
    assert.equal(longestPrefix("xabc", 1, ["a", "ab", "b", "abd"]), "ab");
    assert.equal(longestPrefix("xabc", 0, ["a", "ab"]), "");
    assert.deepEqual(surfaces(made, "a\ud800a").length, 4); // a half of a character is an unknown one
    assert.deepEqual(split(made, "a\ud800"), ["▁", "a", "<unk>"]);
  });

  test("unknown characters side by side are one piece, or are spelt in bytes", () => {
    const letters = [["▁", "n", -1], ["a", "n", -1]];
    const made = tokenizer(letters);
    assert.deepEqual(surfaces(made, "a日本a語"), ["", "a", "日本", "a", "語"]);
    const bytes = Array.from({ length: 256 }, (_, n) => [`<0x${n.toString(16)}>`, "b"]);
    const spelling = tokenizer([...bytes, ...letters]);
    const ids = spelling.encode("a日🙂é");
    const spelt = [...Buffer.from("日🙂é")];
    assert.deepEqual(ids.slice(2).map(({ id }) => spelling.bytes.indexOf(id)), spelt);
    assert.deepEqual(ids.map(({ start, end }) => "a日🙂é".slice(start, end)),
      ["", "a", "", "", "日", "", "", "", "🙂", "", "é"]);
    assert.equal(spelling.decode(ids.map(({ id }) => id)), "a日🙂é");
    const decoded = (...some) => spelling.decode(some.map((byte) => spelling.bytes[byte]));
    assert.equal(decoded(0x41, 0x7f), "A\x7f");
    assert.equal(decoded(0xc3, 0xa9, 0xdf, 0xbf, 0xc2, 0x80), "é\u07ff\x80");
    assert.equal(decoded(0xe0, 0xa0, 0x80, 0xef, 0xbf, 0xbf), "\u0800\uffff");
    assert.equal(decoded(0xef, 0xbb, 0xbf), "\ufeff");
    assert.equal(decoded(0xf0, 0x90, 0x80, 0x80, 0xf4, 0x8f, 0xbf, 0xbf), "\u{10000}\u{10ffff}");
    assert.equal(decoded(0x41, 0xe6, 0x97, 0x41), "A\ufffd\ufffdA"); // each byte that spells nothing
    assert.equal(decoded(0x80, 0xff), "\ufffd\ufffd");
  });

  test("UTF-8 bytes of a character are those of the standard", () => {
    for (const point of [0, 0x41, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xffff, 0x10000, 0x1f642, 0x10ffff]) {
      assert.deepEqual(utf8(point), [...new TextEncoder().encode(String.fromCodePoint(point))], point.toString(16));
    }
  });

  test("pieces are joined to a text: without control symbols and the space in front", () => {
    const list = [["<s>", "c"], ["▁", "n"], ["▁a", "n"], ["b", "n"], ["d▁", "n"], ["<0x41>", "b"]];
    const decoded = (names, more) => {
      const made = tokenizer(list, more);
      return made.decode(names.map((name) => made.pieces.indexOf(name)));
    };
    assert.equal(decoded(["▁a", "b", "▁a"]), "ab a");
    assert.equal(decoded(["<s>", "▁a", "<s>", "b"]), "ab");
    assert.equal(decoded(["▁", "▁a"]), "a");
    assert.equal(decoded(["▁", "▁", "▁a"], { normaliser: { extra_spaces: true } }), "  a");
    assert.equal(decoded(["▁", "▁a"], { normaliser: { extra_spaces: true, dummy_prefix: false } }), "  a");
    assert.equal(decoded(["▁", "▁a"], { normaliser: { dummy_prefix: false } }), "a");
    assert.equal(decoded(["b", "▁a", "d▁", "▁"]), "b ad  ");
    assert.equal(decoded(["b", "<unk>", "b"]), "b ⁇ b");
    assert.equal(decoded(["<unk>", "▁a"]), " ⁇  a");
    assert.equal(decoded(["b", "<unk>"], { unknown_text: "?" }), "b?");
    assert.equal(decoded([]), "");
  });

  test("a verbatim tokenizer keeps every character, and its lines and places", () => {
    const characters = ["▁", "a", "b", "␊", "␛", "n", "s", "u", "0", "e", "日"].map((one) => [one, "n"]);
    const made = tokenizer(characters, { type: "char", verbatim: true, normaliser: { dummy_prefix: false,
      extra_spaces: true } });
    for (const text of ["a\nb", "a\n\n", "\n", "a  b ", "▁a▅\0\x1f␛e␊", "␛n日\nb␛"]) {
      const ids = made.encode(text);
      assert.equal(ids.map(({ start, end }) => text.slice(start, end)).join(""), text, JSON.stringify(text));
      assert.equal(made.decode(ids.map(({ id }) => id)), text.replace("日", "日"), JSON.stringify(text));
    }
    assert.deepEqual(split(made, "a\nb"), ["a", "␊", "b"]);
    assert.deepEqual(split(made, "␊▁"), ["␛", "n", "␛", "s"]);
    assert.deepEqual(made.encode("b\n\0a").map(({ start, end }) => [start, end]), [[0, 1], [1, 2], [2, 2], [2, 3],
      [3, 4]]);
    const plain = tokenizer(characters, { type: "char" });
    assert.deepEqual(split(plain, "a␊"), ["▁", "a", "␊"]);
  });

  // The characters after normalisation, and the part of the text that each comes from.
  function normalised(text, described, userDefined = []) {
    const { characters, origins } = new Normaliser({ ...NORMALISER, ...described }, new Uint8Array(0),
      userDefined).normalise(text);
    assert.equal(origins.length, characters.length + 1);
    return [characters.join(""), characters.map((_, n) => text.slice(origins[n], origins[n + 1])), origins.at(-1)];
  }

  test("spaces are kept, joined or marked as the tokenizer was trained to", () => {
    assert.deepEqual(normalised("  a  b ", {}), ["▁a▁b", ["", "a", "  ", "b"], 6]);
    assert.deepEqual(normalised("  a  b ", { extra_spaces: true }), ["▁▁▁a▁▁b▁", ["", " ", " ", "a", " ", " ", "b",
      " "], 7]);
    assert.deepEqual(normalised("a b", { dummy_prefix: false }), ["a▁b", ["a", " ", "b"], 3]);
    assert.deepEqual(normalised(" a b ", { space_as_suffix: true }), ["a▁b▁", ["a", " ", "b", ""], 4]);
    assert.deepEqual(normalised("a b", { escape_spaces: false }), [" a b", ["", "a", " ", "b"], 3]);
    assert.deepEqual(normalised("a ", { escape_spaces: false }), [" a", ["", "a"], 1]);
    assert.deepEqual(normalised("", {}), ["", [], 0]);
    assert.deepEqual(normalised("   ", {}), ["", [], 3]);
    assert.deepEqual(normalised("", { extra_spaces: true }), ["", [], 0]);
    assert.deepEqual(normalised(" ", { extra_spaces: true }), ["▁▁", ["", " "], 1]);
    assert.deepEqual(normalised("🙂a", {}), ["▁🙂a", ["", "🙂", "a"], 3]);
    assert.equal(normalised("a  b", {}, ["  b"])[0], "▁a▁▁b"); // a user-defined piece stays as it is
  });

  if (!model.source.described.charsmap_bytes) return;

  test("compatible characters become those of NFKC, and lead back to their places in the text", () => {
    const normaliser = model.source.normaliser;
    const texts = ["ﬁancée", "ＡＢｃ　ｄ", "㎏½①", "e\u0301x", "ﷺ", "①\u0301", "a", "ÅÅ", "…ﬃ…", "日本"];
    for (const text of texts) {
      const { characters, origins } = normaliser.normalise(text);
      assert.equal(characters.join("").replaceAll("▁", " ").trim(), text.normalize("NFKC").trim(), text);
      assert.deepEqual(origins, origins.toSorted((a, b) => a - b));
      assert.equal(origins.at(-1), text.length);
    }
    const whole = texts.join(" ");
    assert.equal(normaliser.normalise(whole).characters.join(""), `▁${whole.normalize("NFKC").replaceAll(" ", "▁")}`);
    const { characters, origins } = normaliser.normalise("aﬁe\u0301b");
    assert.deepEqual(characters, ["▁", "a", "f", "i", "é", "b"]);
    assert.deepEqual(origins, [0, 0, 1, 1, 2, 4, 5]);
    assert.deepEqual(normaliser.normalise("\u3000 a").origins.slice(0, 2), [2, 2]); // what becomes spaces in front
    const kept = new Normaliser(model.source.described.normaliser, new Uint8Array(0), ["ﬁ"]);
    Object.assign(kept, { units: normaliser.units, texts: normaliser.texts });
    assert.deepEqual(kept.normalise("ﬁﬂ").characters, ["▁", "ﬁ", "f", "l"]);
  });
}
