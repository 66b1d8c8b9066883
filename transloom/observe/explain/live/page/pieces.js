// From a text to SentencePiece's pieces and back, with the characters that each piece stands for.
//
//   text ─(verbatim: line by line, escaped)─▶ normalised ─▶ best segmentation ─▶ pieces
//
// BPE joins the pair with the best score until none is left; unigram takes the segmentation whose
// scores have the largest sum. Sums are float32, as in SentencePiece 0.2.3 (bpe_model.cc,
// unigram_model.cc, sentencepiece_processor.cc), so that ties fall alike.

import { longestPrefix, Normaliser, SPACE_MARK, utf8 } from "./normaliser.js";

const UNKNOWN_PENALTY = 10;
const SMALLEST_FLOAT = 2 ** -126; // where SentencePiece begins to look for the greatest score
const UNKNOWN_TEXT = " ⁇ ";
const REPLACEMENT = "\ufffd";

// What stands for the characters that a verbatim model must not see, as in data_pipeline.
const ESCAPES = new Map([
  ["\n", "␊"], ["␊", "␛n"], ["▁", "␛s"], ["▅", "␛u"], ["\0", "␛0"], ["\x1f", "␛b"], ["␛", "␛e"],
]);
const MEANT = new Map([...ESCAPES].map(([character, written]) => [written, character]));

export class SentencePiece {
  // `described`: see sentence_piece.py; `rules`: the normaliser's table.
  constructor(described, rules) {
    const { pieces, scores, types } = described;
    this.described = described;
    this.pieces = pieces;
    this.scores = Float32Array.from(scores);
    this.types = types;
    const ids = (kinds) => [...types].flatMap((type, id) => (kinds.includes(type) ? [id] : []));
    this.userDefined = ids("d").map((id) => pieces[id]);
    this.segments = new Map(ids("ndx").map((id) => [pieces[id], id]));
    this.reserved = new Map(ids("cub").map((id) => [pieces[id], id]));
    this.bytes = ids("b");
    this.longest = Math.max(1, ...ids("ndx").map((id) => [...pieces[id]].length));
    const normal = ids("n").map((id) => this.scores[id]);
    this.smallest = normal.reduce((a, b) => Math.min(a, b), Infinity);
    this.greatest = normal.reduce((a, b) => Math.max(a, b), SMALLEST_FLOAT);
    this.normaliser = new Normaliser(described.normaliser, rules, this.userDefined);
  }

  // The pieces of a text as {id, start, end}: what is between these places of the text, in UTF-16
  // units, became the piece. Of a character that is spelt in bytes, the last byte stands for it.
  encode(text) {
    text = text.toWellFormed ? text.toWellFormed() : text.replace(/\p{Surrogate}/gu, REPLACEMENT);
    if (!this.described.verbatim) return this.encodeLine(text);
    let start = 0;
    return text.split(/(?<=\n)/).flatMap((line) => {
      const [written, places] = escaped(line, start);
      start += line.length;
      return this.encodeLine(written).map((piece) =>
        ({ ...piece, start: places[piece.start], end: places[piece.end] }));
    });
  }

  encodeLine(text) {
    const { characters, origins } = this.normaliser.normalise(text);
    const segment = { bpe, unigram, char: single }[this.described.type];
    const cuts = segment(this, characters);
    const found = [];
    let at = 0;
    let afterUnknown = false;
    for (const { length, id } of cuts) {
      const [start, end] = [origins[at], origins[at + length]];
      const isUnknown = id === this.described.unk_id;
      if (isUnknown && this.bytes.length) {
        const bytes = characters.slice(at, at + length)
          .flatMap((character) => utf8(character.codePointAt(0)));
        bytes.forEach((byte, i) => found.push(
          { id: this.bytes[byte], start, end: i === bytes.length - 1 ? end : start }));
      } else if (isUnknown && afterUnknown) {
        found.at(-1).end = end;
      } else {
        found.push({ id, start, end });
      }
      afterUnknown = isUnknown;
      at += length;
    }
    return found;
  }

  idOf(piece) {
    return this.reserved.get(piece) ?? this.segments.get(piece) ?? this.described.unk_id;
  }

  // The text that pieces spell. Control symbols leave nothing behind.
  decode(ids) {
    const { normaliser, unknown_text, verbatim } = this.described;
    const dropsSpace = normaliser.dummy_prefix || !normaliser.extra_spaces;
    let text = "";
    let atStart = true;
    let droppedSpace = false;
    for (let i = 0; i < ids.length;) {
      const type = this.types[ids[i]];
      if (type === "b") {
        const first = i;
        while (i < ids.length && this.types[ids[i]] === "b") i++;
        text += spelt(ids.slice(first, i).map((id) => this.bytes.indexOf(id)));
        continue;
      }
      if (droppedSpace || text) atStart = false;
      droppedSpace = false;
      let piece = this.pieces[ids[i++]];
      if (type === "c") continue;
      if (type === "u") {
        text += unknown_text ?? UNKNOWN_TEXT;
        continue;
      }
      if (atStart && dropsSpace && piece.startsWith(SPACE_MARK)) {
        piece = piece.slice(1);
        droppedSpace = normaliser.extra_spaces;
      }
      text += piece.replaceAll(SPACE_MARK, " ");
    }
    return verbatim ? text.replace(/␛[nsu0be]|␊/gu, (written) => MEANT.get(written)) : text;
  }
}

// A line with its escapes, and for each place in it the place of the text that it comes from.
function escaped(line, start) {
  let written = "";
  const places = [];
  for (const character of line) {
    const becomes = ESCAPES.get(character) ?? character;
    written += becomes;
    for (let i = 0; i < becomes.length; i++) {
      places.push(start + (becomes === character ? i : 0));
    }
    start += character.length;
  }
  return [written, [...places, start]];
}

// The characters that bytes spell; each byte that spells none is one �.
function spelt(bytes) {
  let text = "";
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (let i = 0; i < bytes.length;) {
    const first = bytes[i];
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    try {
      text += decoder.decode(Uint8Array.from(bytes.slice(i, i + length)));
      i += length;
    } catch {
      text += REPLACEMENT;
      i += 1;
    }
  }
  return text;
}

// All segmentations below: characters ─▶ [{length in characters, id}].

function single(tokenizer, characters) {
  return units(tokenizer, characters).map(({ text, length }) =>
    ({ length, id: tokenizer.idOf(text) }));
}

// Characters, where user-defined pieces stay whole.
function units({ userDefined }, characters) {
  const text = userDefined.length ? characters.join("") : "";
  const found = [];
  for (let at = 0, place = 0; at < characters.length;) {
    const fixed = longestPrefix(text, place, userDefined);
    const unit = fixed || characters[at];
    const length = fixed ? [...fixed].length : 1;
    found.push({ text: unit, length, fixed: fixed !== "" });
    at += length;
    place += unit.length;
  }
  return found;
}

function bpe(tokenizer, characters) {
  const symbols = units(tokenizer, characters).map((unit, i) =>
    ({ ...unit, before: i - 1, after: i + 1 }));
  if (symbols.length) symbols.at(-1).after = -1;
  const pairs = [];
  const joinedFrom = new Map(); // unused pieces, which are taken apart again
  const offer = (left, right) => {
    if (left < 0 || right < 0 || symbols[left].fixed || symbols[right].fixed) return;
    const text = symbols[left].text + symbols[right].text;
    const id = tokenizer.segments.get(text);
    if (id === undefined) return;
    pairs.push({ left, right, text, score: tokenizer.scores[id] });
    if (tokenizer.types[id] === "x") joinedFrom.set(text, [symbols[left], symbols[right]]
      .map(({ text, length }) => ({ text, length })));
  };
  for (let i = 1; i < symbols.length; i++) offer(i - 1, i);
  for (let pair; (pair = takenBest(pairs));) {
    const [left, right] = [symbols[pair.left], symbols[pair.right]];
    if (!left.text || !right.text || left.text.length + right.text.length !== pair.text.length) {
      continue;
    }
    left.text = pair.text;
    left.length += right.length;
    left.after = right.after;
    if (right.after >= 0) symbols[right.after].before = pair.left;
    right.text = "";
    offer(left.before, pair.left);
    offer(pair.left, left.after);
  }
  const apart = ({ text, length }) => {
    const id = tokenizer.idOf(text);
    const parts = tokenizer.types[id] === "x" ? joinedFrom.get(text) : undefined;
    return parts ? parts.flatMap(apart) : [{ length, id }];
  };
  const found = [];
  for (let i = symbols.length ? 0 : -1; i >= 0; i = symbols[i].after) {
    found.push(...apart(symbols[i]));
  }
  return found;
}

// Viterbi's algorithm (Kudo 2018, §3.2): the best way to each place from the ways to those before.
function unigram(tokenizer, characters) {
  const { segments, scores, types, longest, smallest, greatest } = tokenizer;
  const unknownScore = Math.fround(smallest - UNKNOWN_PENALTY);
  const unreached = { from: -1, score: 0, id: -1 };
  const best = new Array(characters.length + 1).fill(unreached);
  const offer = (end, from, score, id) => {
    if (best[end].from < 0 || score > best[end].score) {
      best[end] = { from, score: Math.fround(score), id };
    }
  };
  for (let from = 0; from < characters.length; from++) {
    const soFar = best[from].score;
    let text = "";
    let bytes = 0;
    let hasSingle = false;
    for (let end = from + 1; end <= Math.min(characters.length, from + longest); end++) {
      text += characters[end - 1];
      bytes += utf8(characters[end - 1].codePointAt(0)).length;
      const id = segments.get(text);
      if (id === undefined || types[id] === "x") continue;
      const score = types[id] === "d" ? Math.fround(bytes * greatest) - 0.1 : scores[id];
      offer(end, from, types[id] === "d" ? score + soFar : Math.fround(score + soFar), id);
      hasSingle ||= end === from + 1;
    }
    if (!hasSingle) {
      offer(from + 1, from, Math.fround(unknownScore + soFar), tokenizer.described.unk_id);
    }
  }
  const found = [];
  for (let end = characters.length; end > 0; end = best[end].from) {
    found.unshift({ length: end - best[end].from, id: best[end].id });
  }
  return found;
}

// The pair with the best score, the leftmost of equal ones, which is taken out; undefined without any.
function takenBest(pairs) {
  const isBetter = (a, b) => a.score > b.score || (a.score === b.score && a.left < b.left);
  const best = pairs.reduce((most, pair, n) => (isBetter(pair, pairs[most]) ? n : most), 0);
  return pairs.splice(best, 1)[0];
}
