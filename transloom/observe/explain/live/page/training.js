// What training sees of a sentence: the reference as the decoder reads it (teacher forcing), the
// loss of each of its pieces as model/losses/loss.py has it, and dropout as model/blocks/dropout.py draws it.
//
//   reference ─▶ pieces and EOS: the target ─▶ shifted by BOS: the input ─▶ one pass ─▶ losses

import { formatNumber } from "../../../drawing/numbers.js";
import { checkLength } from "./computing.js";
import { NOTHING_SWITCHED, traceSlices } from "./forward.js";
import { logSumExp, row, tensor } from "./tensors.js";

const DROPOUT_LEVELS = 2 ** 16; // a share of zeros is a multiple of 1 / 65536
export const ATTENTION_WEIGHTS = ".weights"; // the end of their places' names

// {input, target, traced, losses}: the pass in which row t has read the reference's pieces before t
// and is to predict piece t. `losses`: of each row, see `lossOf`.
export function* teacherForcedSlices(model, ids, reference, smoothing, drop = null) {
  const { bos_id, eos_id } = model.vocabulary;
  const target = [...model.target.encode(reference).map(({ id }) => id), eos_id];
  checkLength(target.length, "reference");
  const input = [bos_id, ...target.slice(0, -1)];
  const traced = yield* traceSlices(model, ids, input, { ...NOTHING_SWITCHED, drop });
  const losses = target.map((id, t) => lossOf(row(traced.logits_tv, t), id, smoothing));
  return { input, target, traced, losses };
}

// Of one row, in nats: `nll`, −log p of the right piece; `all`, the mean of −log p of all pieces;
// `smoothed`, (1 − ε) · nll + ε · all, which training minimises (Szegedy et al. 2016, §7).
function lossOf(logits, right, smoothing) {
  const normaliser = logSumExp(logits);
  let sum = 0;
  for (const logit of logits) sum += logit;
  const nll = normaliser - logits[right];
  const all = normaliser - sum / logits.length;
  return { nll, all, smoothed: (1 - smoothing) * nll + smoothing * all };
}

// What the loss wants of one row, beside what the model says: the right piece, the `count` most
// probable others, and all that are left together. {id, wanted, said, loss}: shares of the target
// and of the model, and the part of the loss, −wanted · log said. `id` is null for those left.
export function targetBesideModel({ traced, target }, t, smoothing, count) {
  const logits = row(traced.logits_tv, t);
  const normaliser = logSumExp(logits);
  const share = smoothing / logits.length; // that every piece gets
  const entry = (id) => {
    const wanted = share + (id === target[t] ? 1 - smoothing : 0);
    return { id, wanted, said: Math.exp(logits[id] - normaliser),
      loss: wanted * (normaliser - logits[id]) };
  };
  const others = Array.from(logits, (_, id) => entry(id)).filter(({ id }) => id !== target[t])
    .sort((a, b) => b.said - a.said || a.id - b.id);
  const left = others.slice(count);
  return [entry(target[t]), ...others.slice(0, count), {
    id: null, count: left.length, wanted: totalOf(left, "wanted"), said: totalOf(left, "said"),
    loss: totalOf(left, "loss"),
  }];
}

// Dropout for one pass: `drop(place, x)` sets about a share of x to zero and scales the rest, and
// `masks` has what was kept where, in the order of computation: {place, before, kept, scale}.
export function dropping({ dropout, attention_dropout }, seed) {
  const draw = generator(seed);
  const masks = [];
  const drop = (place, x) => {
    const zeros = Math.round(
      (place.endsWith(ATTENTION_WEIGHTS) ? attention_dropout : dropout) * DROPOUT_LEVELS);
    if (!zeros) return x;
    const scale = DROPOUT_LEVELS / (DROPOUT_LEVELS - zeros);
    const kept = Uint8Array.from(x.data, () => (draw() >= zeros ? 1 : 0));
    masks.push({ place, before: x, kept, scale });
    return tensor(x.shape, x.data.map((value, i) => value * kept[i] * scale));
  };
  return { drop, masks };
}

// Numbers below 65536, the same for the same seed (mulberry32). Not those that torch draws.
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 16;
  };
}

export const nats = (value) => formatNumber(value, 4);
export const totalOf = (some, name) => some.reduce((sum, one) => sum + one[name], 0);
