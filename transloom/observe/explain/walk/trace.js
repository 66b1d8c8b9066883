// The trace of a sentence: all numbers that the sections draw. It has the same form whether the page's
// own model computed it or a command recorded it:
//
//   model        facts about the model: form, sizes, limits of what is drawn
//   source, target, chosen     {ids, texts}: what the encoder reads, the decoder reads, each step chose
//   encoder, decoder           tensors under the names of model/inspection/trace.py, see forward.js
//   predictions                for each step {candidates, best}, most probable first
//   made, beam                 the texts of greedy search and of beam search (null: not yet computed)
//
// The trace of a text has `text`, `pieces`, `positions` and one `stack` instead of source and target,
// see text/text_page.py. A live one also has what sampling drew: `sampling` and `draws`.
//
// A tensor is {shape, data}. Of a recorded one, `data` has the rows and columns that are drawn, `kept`
// is their shape, and `first` is the whole first row.

import { bytesOfBase85, inflated, joinedPlanes } from "../live/page/bytes.js";
import { candidatesAt, shownPiece } from "../live/page/computing.js";
import { mostProbable, row } from "../live/page/tensors.js";

// The trace of a result of `computeSentenceSlices` or `computeTextSlices`.
export function liveTrace(facts, model, result) {
  return (facts.family === "translation" ? liveTranslation : liveText)(facts, model, result);
}

const withTexts = (model, ids) => ({ ids, texts: ids.map((id) => model.target.pieces[id]) });

function liveTranslation(facts, model, result) {
  const { traced, ids, chosen } = result;
  const { pad_id, bos_id } = model.vocabulary;
  return {
    model: facts, sentence: result.sentence, tag: result.tag, made: result.translation,
    beam: null, encoder: traced.encoder, decoder: traced.decoder,
    source: { ids, texts: ids.map((_, n) => shownPiece(model, result, n)) },
    target: withTexts(model, traced.decoder.ids), chosen: withTexts(model, chosen),
    predictions: predictionsOf(facts, model, traced, chosen, new Set([pad_id, bos_id])),
  };
}

// A piece of a continuation is followed by another; in the place of [MASK] belongs the most probable one.
function liveText(facts, model, result) {
  const { ids, chosen = [], draws = [], places, special } = result;
  const follow = places ? places.map(() => null) : [...ids.slice(1), chosen.at(-1)];
  return {
    ...result, model: facts,
    draws: draws.map((draw) => ({ ...draw, kept: draw.kept.map((one) =>
      ({ ...one, text: model.target.pieces[one.id] })) })),
    pieces: { ids, texts: result.shown }, chosen: withTexts(model, chosen),
    predictions: predictionsOf(facts, model, result.traced, follow, special),
  };
}

// `follow`: the piece after each row, or null for the most probable one that is not in `never`.
function predictionsOf({ limits }, model, traced, follow, never) {
  return follow.map((next, t) => {
    const [logits, probabilities] = [row(traced.logits_tv, t), row(traced.probabilities_tv, t)];
    const candidate = (id) =>
      ({ id, text: model.target.pieces[id], logit: logits[id], probability: probabilities[id] });
    const best = mostProbable(probabilities, never);
    const order = candidatesAt({ traced }, t, limits.candidates).map(({ id }) => id);
    const shown = order.includes(next ?? best) ? order : [...order, next ?? best];
    return { candidates: shown.map(candidate), best: candidate(best) };
  });
}

// The trace that recording.py has written.
export async function recordedTrace(facts, recorded) {
  const bytes = await inflated(bytesOfBase85(recorded.data, recorded.bytes));
  const numbers = joinedPlanes(bytes, recorded.floats);
  let first = 0;
  const take = (count) => numbers.subarray(first, (first += count));
  const tensors = recorded.tensors.map(({ shape, kept, whole }) => ({
    shape, kept, data: take(kept.reduce((product, length) => product * length, 1)),
    first: whole ? take(shape.at(-1)) : null,
  }));
  const unpacked = (part) => {
    if (Array.isArray(part)) return part.map(unpacked);
    if (typeof part === "number") return tensors[part];
    if (part === null) return null;
    return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, unpacked(value)]));
  };
  return { ...recorded, model: facts, ...unpacked(recorded.traced) };
}

// The numbers of a matrix, or of one of its heads, as rows: at most so many rows and columns.
export function rowsOf({ shape, data, kept = shape }, head, rows = Infinity, columns = Infinity) {
  const [height, width] = kept.slice(-2);
  return Array.from({ length: Math.min(rows, height) }, (_, r) => {
    const start = ((head ?? 0) * height + r) * width;
    return data.subarray(start, start + Math.min(columns, width));
  });
}

// Row t of each of the first heads, cut to so many columns.
export function rowOfHeads(tensor, heads, t, columns = Infinity) {
  return Array.from({ length: Math.min(heads, tensor.shape[0]) }, (_, head) =>
    rowsOf(tensor, head, t + 1, columns)[t]);
}

// The whole first row of a matrix.
export function firstRow(tensor) {
  return tensor.first ?? rowsOf(tensor, null, 1)[0];
}

// The output of a stack's last layer, before the last norm.
export function lastLayer({ last_tm, layers }) {
  return last_tm ?? layers.at(-1).feed_forward_residual.output_tm;
}

export function lengthOf(vector) {
  return Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
}
