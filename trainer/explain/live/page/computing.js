"use strict";
// All that the page shows of a sentence: pieces, greedy translation and what each step looked at.

const MOST_PIECES = 128;

// {source, texts, parts, translation, chosen, traced, hypotheses, logProbability}; with `kept`, a
// result of before, the decoder reads the translation of then, so that both can be compared.
function computeSentence(model, sentence, tag, switches, kept = null) {
  const { bos_id, eos_id } = model.vocabulary;
  const parts = model.source.encode(sentence);
  const first = tag ? [model.source.reserved.get(tag)] : [];
  const ids = [...first, ...parts.map(({ id }) => id), eos_id];
  if (ids.length > MOST_PIECES) {
    throw new RangeError(`These are ${ids.length} pieces; the page takes ${MOST_PIECES}.`);
  }
  const found = greedySearch(model, ids, switches);
  if (!found) throw new RangeError("The model's probabilities are not numbers.");
  const chosen = kept ? kept.chosen : [...found.ids, eos_id];
  const traced = trace(model, ids, [bos_id, ...chosen.slice(0, -1)], switches);
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

// The most probable pieces after step t: [{id, probability}], most probable first.
function candidatesAt({ traced }, t, count) {
  const probabilities = row(traced.probabilities_tv, t);
  return Array.from(probabilities, (probability, id) => ({ id, probability }))
    .sort((a, b) => b.probability - a.probability || a.id - b.id).slice(0, count);
}

// What piece n of the sentence stands for: {text, note}.
function standsFor(model, { sentence, parts, tag, ids }, n) {
  if (tag && n === 0) return { text: "", note: "the tag" };
  if (n === ids.length - 1) return { text: "", note: "the end, always added" };
  const { id, start, end } = parts[n - (tag ? 1 : 0)];
  const type = model.source.types[id];
  const note = { u: "unknown to the model", b: "a byte of its spelling" }[type] ?? "";
  return { text: sentence.slice(start, end), note };
}
