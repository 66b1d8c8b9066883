// All heads together, with three measures of what the attention contributes:
//
//   attention weights          how much of each value a row takes
//   lengths of what is taken   ‖weight · value · Wᴼ‖ (Kobayashi et al. 2020): a large weight on a
//                              value of nearly zero brings nearly nothing
//   occlusion                  how much less probable a chosen piece gets when a piece of the
//                              sentence is replaced by the unknown piece

import { NOTHING_SWITCHED, traceSlices } from "./forward.js";
import { allPlaces, nameOfAttention, tensorAt } from "./places.js";
import { dot, logSumExp, row, tensor } from "./tensors.js";

// Every attention of the model: [{key, name}], in the order of computation.
export function attentionsOf(model) {
  return allPlaces(model).filter(({ key }) => key.endsWith(".weights_hts"))
    .map(({ key }) => key.replace(".weights_hts", ""))
    .map((key) => ({ key, name: nameOfAttention(key) }));
}

// ‖weight · value · Wᴼ‖ of each head, query and key, (h, t, s); of a head that is off, zero.
export function lengthsTaken(model, traced, key, switches = NOTHING_SWITCHED) {
  const { weights_hts, values_hsd } = tensorAt(traced, key);
  const [heads, length, keys] = weights_hts.shape;
  const d = values_hsd.shape[2];
  const weight = model.weights[`${key}.output.weight`];
  const lengths_hts = tensor(weights_hts.shape);
  for (let h = 0; h < heads; h++) {
    if (switches.headsOff.has(`${key.replace(".layers", "")}.${h}`)) continue;
    for (let s = 0; s < keys; s++) {
      const value = values_hsd.data.subarray((h * keys + s) * d, (h * keys + s + 1) * d);
      let squares = 0;
      for (let o = 0; o < weight.shape[0]; o++) {
        squares += dot(value, row(weight, o).subarray(h * d, (h + 1) * d)) ** 2;
      }
      for (let t = 0; t < length; t++) {
        const at = (h * length + t) * keys + s;
        lengths_hts.data[at] = weights_hts.data[at] * Math.sqrt(squares);
      }
    }
  }
  return lengths_hts;
}

// log p(chosen piece) less what it is without a source piece, in nats, (t, s). The last source
// piece, the end of the sentence, is not replaced.
export function* occlusionSlices(model, { ids, chosen, traced, switches }) {
  const { unk_id } = model.source.described;
  const input = traced.decoder.ids;
  const logOf = ({ logits_tv }, t) => row(logits_tv, t)[chosen[t]] - logSumExp(row(logits_tv, t));
  const drops_ts = tensor([chosen.length, ids.length - 1]);
  for (let s = 0; s < ids.length - 1; s++) {
    const without =
      yield* traceSlices(model, ids.map((id, n) => (n === s ? unk_id : id)), input, switches);
    chosen.forEach((_, t) => { row(drops_ts, t)[s] = logOf(traced, t) - logOf(without, t); });
  }
  return drops_ts;
}

// The mean of all heads of all cross-attentions, (t, s): what is usually shown as "the attention".
export function meanCrossAttention(model, traced) {
  const all = traced.decoder.layers.map(({ cross_attention }) => cross_attention.weights_hts);
  const [heads, length, keys] = all[0].shape;
  const mean_ts = tensor([length, keys]);
  for (const { data } of all) {
    data.forEach((weight, n) => {
      mean_ts.data[n % (length * keys)] += weight / (heads * all.length);
    });
  }
  return mean_ts;
}
