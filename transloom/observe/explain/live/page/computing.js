// Computes all that the page shows of a sentence: pieces, greedy translation and the trace of each step.

import { traceSlices } from "./forward.js";
import { lengthPenalty, NOT_A_NUMBER, searchSlices } from "./search.js";
import { keepBest, row } from "./tensors.js";

export const MOST_PIECES = 128;

// {source, texts, parts, translation, chosen, traced, hypotheses, logProbability}; with `kept`, a
// result of before, the decoder reads the translation of then, so that both can be compared.
export function* computeSentenceSlices(model, sentence, tag, switches, kept = null) {
  const { bos_id, eos_id } = model.vocabulary;
  const parts = model.source.encode(sentence);
  const first = tag ? [model.source.reserved.get(tag)] : [];
  const ids = [...first, ...parts.map(({ id }) => id), eos_id];
  checkLength(ids.length, "sentence");
  const [found] = yield* searchSlices(model, ids, { beam: 1, switches });
  if (!found) throw new RangeError(NOT_A_NUMBER);
  const chosen = kept ? kept.chosen : [...found.ids, eos_id];
  const traced = yield* traceSlices(model, ids, [bos_id, ...chosen.slice(0, -1)], switches);
  return {
    sentence, tag, ids, parts, traced, chosen, switches,
    translation: model.target.decode(found.ids),
    logProbability:
      found.score * lengthPenalty(found.ids.length + 1, model.decoding.length_penalty),
    pieces: {
      source: ids.map((id) => model.source.pieces[id]),
      target: [bos_id, ...chosen.slice(0, -1)].map((id) => model.target.pieces[id]),
      vocabulary: model.target.pieces,
    },
  };
}

export function checkLength(count, noun, most = MOST_PIECES) {
  if (count <= most) return;
  throw new RangeError(`These are ${count} pieces, but the page takes ${most}: shorten the ${noun}.`);
}

// The most probable pieces after step t: [{id, probability}], most probable first. Of equal ones
// the lower id comes first.
export function candidatesAt({ traced }, t, count) {
  const best = [];
  row(traced.probabilities_tv, t).forEach((probability, id) => {
    keepBest(best, count, "probability", { id, probability });
  });
  return best;
}

// The text that piece n of the sentence represents: {text, note}.
export function standsFor(model, { sentence, parts, tag, ids }, n) {
  if (tag && n === 0) return { text: "", note: "the tag" };
  if (n === ids.length - 1) return { text: "", note: "end of the sentence, always added" };
  const { id, start, end } = parts[n - (tag ? 1 : 0)];
  const type = model.source.types[id];
  const note = { u: "unknown to the model", b: "a byte of its spelling" }[type] ?? "";
  return { text: sentence.slice(start, end), note };
}

// A piece of the sentence; of an unknown one its characters, too.
export function shownPiece(model, result, n) {
  const piece = model.source.pieces[result.ids[n]];
  const { text, note } = standsFor(model, result, n);
  return note.startsWith("unknown") ? `${text} (${piece})` : piece;
}
