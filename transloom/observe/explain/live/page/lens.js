// The layer lens: what the row of each decoder layer would predict if the output matrix read it
// there and then (nostalgebraist 2020, "interpreting GPT: the logit lens"). An approximation: the
// last layer alone was trained to be read so, and for it alone this is what the model predicts.

import { lastNorm, logitsSlices } from "./forward.js";
import { mostProbable, row, softmax } from "./tensors.js";

// From the embedding up: [{name, probabilities_tv}].
export function* lensSlices(model, { decoder }) {
  const rows = [["embedding", decoder.embedding.sum_tm], ...decoder.layers.map((layer, n) =>
    [`layer ${n + 1}`, layer.feed_forward_residual.output_tm])];
  const lens = [];
  for (const [name, row_tm] of rows) {
    const logits_tv = yield* logitsSlices(model, lastNorm(model, "decoder", row_tm));
    lens.push({ name, probabilities_tv: softmax(logits_tv) });
  }
  return lens;
}

// What one row of the lens says after step t: the piece that it finds most probable, and how
// probable it finds the one that was chosen.
export function lensAt({ probabilities_tv }, t, chosen) {
  const probabilities = row(probabilities_tv, t);
  const best = mostProbable(probabilities);
  return { best, probability: probabilities[best], ofChosen: probabilities[chosen] };
}
