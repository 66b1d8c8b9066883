// Greedy and beam search, as model/generation/search.py: the same scores, limits and ties; and the
// continuation of a text, as model/generation/sampling.py.
//
//   source ids ─▶ encode once ─▶ [ decode one row ─▶ log-probabilities ─▶ choose ] … ─▶ hypotheses
//
// A hypothesis is {ids, score}: pieces without BOS and EOS; nats, over the length penalty of Wu et
// al. 2016 (eq. 14). Padding and BOS are never chosen. The last piece that a limit allows is EOS.

import {
  decodeSlices, encodeSlices, logitsSlices, NOTHING_SWITCHED, projectMemory, readSlices,
} from "./forward.js";
import { keepBest, logSumExp, mostProbable, rowAsMatrix } from "./tensors.js";

export const NOT_A_NUMBER = "The model returns NaN instead of probabilities.";

// Each step looks at the 2k best continuations. Those of the first k that end are found; the best k
// that do not end live on. It is over when k are found. With k = 1 this is greedy search.
//
// `beam` is k and `alpha` the exponent of the length penalty, the recipe's unless given. Translations
// begin with the pieces `prefix`, which count as those that the model chose. `note`, if there is
// one, is called after each step with its continuations, best first: see `judged`.
export function* searchSlices(model, source, {
  beam = model.decoding.beam_size, alpha = model.decoding.length_penalty, prefix = [],
  switches = NOTHING_SWITCHED, note = null,
} = {}) {
  const { eos_id, bos_id } = model.vocabulary;
  const { output_tm: memory } = yield* encodeSlices(model, source, switches);
  const memories = projectMemory(model, memory);
  const limit = limitOf(model, source.length);
  const found = [];
  let live = [{ ids: [], score: 0, past: null }];
  for (let length = 1; length <= limit && found.length < beam && live.length; length++) {
    const given = length <= prefix.length ? prefix[length - 1] : length === limit ? eos_id : null;
    const steps = [];
    for (const { ids, past } of live) {
      steps.push(yield* decodeStepSlices(model, [bos_id, ...ids], memories, switches, past));
    }
    const best = judged(
      bestContinuations(model, live, steps, 2 * beam, given === null ? null : [given]), beam, eos_id);
    const penalty = lengthPenalty(length, alpha);
    best.filter(({ fate }) => fate === "ended").forEach(({ parent, score }) =>
      found.push({ ids: live[parent].ids, score: score / penalty }));
    note?.(best);
    live = best.filter(({ fate }) => fate === "kept").map(({ parent, id, score }) =>
      ({ ids: [...live[parent].ids, id], score, past: steps[parent].past }));
  }
  return found.sort((a, b) => b.score - a.score).slice(0, beam);
}

// What becomes of a step's continuations, best first: each with its `fate`, "kept", "ended" or
// "pruned".
function judged(best, beam, eos_id) {
  let kept = 0;
  const fateOf = (id, rank) => {
    if (id === eos_id) return rank < beam ? "ended" : "pruned";
    return kept++ < beam ? "kept" : "pruned";
  };
  return best.map((one, rank) => ({ ...one, fate: fateOf(one.id, rank) }));
}

// Logits after the last of `ids`, and what the layers' self-attentions keep for the next step.
function* decodeStepSlices(model, ids, memories, switches, past) {
  // Without the mask, earlier rows see the new piece: all rows are computed anew.
  const isNew = switches.mask && past ? ids.slice(-1) : ids;
  return yield* afterLastSlices(model, yield* decodeSlices(
    model, isNew, memories, switches, switches.mask ? past : null));
}

function* afterLastSlices(model, { layers, output_tm }) {
  const { data: logits } = yield* logitsSlices(model, rowAsMatrix(output_tm, output_tm.shape[0] - 1));
  return { logits, past: layers.map(({ self_attention }) => self_attention) };
}

// The pieces that follow a prompt, up to EOS or `steps`: {chosen, draws}. With `sampling`, each piece is
// drawn by the next of its `uniform` numbers, and `draws` has what `drawn` returns; else it is the most
// probable one. Each step computes the row of one piece.
export function* continueSlices(model, prompt, steps, sampling) {
  const [chosen, draws] = [[], []];
  for (let past = null; chosen.length < steps && chosen.at(-1) !== model.vocabulary.eos_id;) {
    const found = yield* readSlices(model, past ? chosen.slice(-1) : prompt, { past });
    const { logits, past: now } = yield* afterLastSlices(model, found);
    const best = mostProbable(logits);
    if (best < 0) throw new RangeError(NOT_A_NUMBER);
    if (sampling) draws.push(drawn(logits, sampling, sampling.uniform[chosen.length]));
    chosen.push(sampling ? draws.at(-1).id : best);
    past = now;
  }
  return { chosen, draws };
}

// Which piece a number in [0, 1) draws: {id, uniform, kept}. `kept` are the pieces that can be drawn,
// most probable first: {id, probability, sum}, `sum` with those before it. `top_k` of 0 keeps all.
export function drawn(logits, { temperature, top_k, top_p }, uniform) {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b)
    .slice(0, top_k || logits.length);
  const shares = order.map((id) => Math.exp((logits[id] - logits[order[0]]) / temperature));
  const total = shares.reduce((sum, share) => sum + share, 0);
  const kept = [];
  for (let sum = 0, n = 0; n < order.length && (n === 0 || sum < top_p); n++) {
    const probability = shares[n] / total;
    sum += probability;
    kept.push({ id: order[n], probability, sum });
  }
  const target = uniform * kept.at(-1).sum;
  return { ...(kept.find(({ sum }) => sum > target) ?? kept.at(-1)), uniform, kept };
}

// The `count` best of all continuations, best first: {parent, id, score}, scores in float32.
function bestContinuations({ vocabulary }, live, steps, count, allowed) {
  const never = new Set([vocabulary.pad_id, vocabulary.bos_id]);
  const best = [];
  steps.forEach(({ logits }, parent) => {
    const without = live[parent].score - logSumExp(logits);
    const offer = (id) => {
      const score = Math.fround(logits[id] + without);
      if (!never.has(id)) keepBest(best, count, "score", { parent, id, score });
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

export function lengthPenalty(length, alpha) {
  return ((5 + length) / 6) ** alpha;
}
