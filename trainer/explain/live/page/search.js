"use strict";
// Greedy and beam search, as model/generation/search.py: the same scores, limits and ties.
//
//   source ids ─▶ encode once ─▶ [ decode one row ─▶ log-probabilities ─▶ choose ] … ─▶ hypotheses
//
// A hypothesis is {ids, score}: pieces without BOS and EOS; nats, over the length penalty of Wu et
// al. 2016 (eq. 14). Padding and BOS are never chosen. The last piece that a limit allows is EOS.

function greedySearch(model, source, switches = NOTHING_SWITCHED) {
  return search(model, source, 1, switches)[0];
}

function beamSearch(model, source, switches = NOTHING_SWITCHED) {
  return search(model, source, model.decoding.beam_size, switches);
}

// Each step looks at the 2k best continuations. Those of the first k that end are found; the best k
// that do not end live on. It is over when k are found. With k = 1 this is greedy search.
function search(model, source, k, switches) {
  const { eos_id, bos_id } = model.vocabulary;
  const memories = projectMemory(model, encode(model, source, switches).output_tm);
  const limit = limitOf(model, source.length);
  const found = [];
  let live = [{ ids: [], score: 0, past: null }];
  for (let length = 1; length <= limit && found.length < k && live.length; length++) {
    const allowed = length === limit ? [eos_id] : null;
    const steps = live.map((hypothesis) =>
      decodeStep(model, [bos_id, ...hypothesis.ids], memories, switches, hypothesis.past));
    const best = bestContinuations(model, live, steps, 2 * k, allowed);
    const penalty = lengthPenalty(length, model.decoding.length_penalty);
    best.slice(0, k).filter(({ id }) => id === eos_id).forEach(({ parent, score }) =>
      found.push({ ids: live[parent].ids, score: score / penalty }));
    live = best.filter(({ id }) => id !== eos_id).slice(0, k).map(({ parent, id, score }) =>
      ({ ids: [...live[parent].ids, id], score, past: steps[parent].past }));
  }
  return found.sort((a, b) => b.score - a.score).slice(0, k);
}

// Logits after the last of `ids`, and what the layers' self-attentions keep for the next step.
function decodeStep(model, ids, memories, switches, past) {
  // Without the mask, earlier rows see the new piece: all rows are computed anew.
  const isNew = switches.mask && past ? ids.slice(-1) : ids;
  const { layers, output_tm } = decode(
    model, isNew, memories, switches, switches.mask ? past : null);
  const last = tensor([1, output_tm.shape[1]], row(output_tm, isNew.length - 1));
  return {
    logits: logitsOf(model, last).data,
    past: layers.map(({ self_attention }) => self_attention),
  };
}

// The `count` best of all continuations, best first: {parent, id, score}, scores in float32.
function bestContinuations({ vocabulary }, live, steps, count, allowed) {
  const never = new Set([vocabulary.pad_id, vocabulary.bos_id]);
  const best = [];
  steps.forEach(({ logits }, parent) => {
    const without = live[parent].score - logSumExp(logits);
    const offer = (id) => {
      const score = Math.fround(logits[id] + without);
      if (never.has(id) || (best.length === count && !(score > best[count - 1].score))) return;
      let place = best.length;
      while (place && score > best[place - 1].score) place--;
      best.splice(place, 0, { parent, id, score });
      if (best.length > count) best.pop();
    };
    if (allowed) allowed.forEach(offer);
    else for (let id = 0; id < logits.length; id++) offer(id);
  });
  return best;
}

// The most pieces of a translation, EOS included, by those of its source.
function limitOf({ decoding }, sourceLength) {
  return Math.trunc(decoding.max_length_factor * sourceLength) + decoding.max_extra_length;
}

function lengthPenalty(length, alpha) {
  return ((5 + length) / 6) ** alpha;
}
