// The layer lens: what the row of each decoder layer would predict if the output matrix read it
// directly (nostalgebraist 2020, "interpreting GPT: the logit lens"). This is an approximation: only
// the last layer was trained for it, and only there is the result the model's prediction.

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

// The prediction of one row of the lens after step t: the most probable piece, and the probability
// of the piece that was chosen.
export function lensAt({ probabilities_tv }, t, chosen) {
  const probabilities = row(probabilities_tv, t);
  const best = mostProbable(probabilities);
  return { best, probability: probabilities[best], ofChosen: probabilities[chosen] };
}
