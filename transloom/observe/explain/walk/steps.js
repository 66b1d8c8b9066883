// The decoder's sections: one per step, then one for all steps as one pass.

import { formatCount, formatNumber, formatPercent } from "../../drawing/numbers.js";
import { headFolds, innerTitle, stages, weightMaps } from "./layers.js";
import { chosenVectors, rowOfAllHeads, vectorsOfHeads } from "./maps.js";
import { bars, fold, heading, shareOfOthers, sideBySide, text, tokens } from "../../drawing/parts.js";
import { rowsOf } from "./trace.js";

const TIE = 1e-6; // by rounding: the search computes one step at a time, the trace all steps

export function decoderSections(trace) {
  const steps = trace.chosen.ids.slice(0, trace.model.limits.pieces);
  return [...steps.map((_, t) => stepSection(trace, t)), allStepsSection(trace)];
}

function stepSection(trace, t) {
  const { form, limits } = trace.model;
  const pieces = trace.target.texts;
  const chosen = trace.chosen.texts[t];
  return {
    group: "Decoding steps",
    name: `${t + 1}: ${pieces[t]} → ${chosen}`,
    title: `Decoding step ${t + 1}: after “${pieces[t]}” comes “${chosen}”`,
    lead: t === 0
      ? `The translation begins with the piece ${pieces[0]}, which only marks the beginning. Its row ` +
        "passes through all decoder layers. The result is the probability of each piece to be the " +
        "first of the translation."
      : `The input is “${pieces[t]}”, which the previous step chose. The keys and values of earlier ` +
        "pieces are still stored, so only one row is computed.",
    parts: () => {
      const { embedding, layers } = trace.decoder;
      const enters = [[`embedding × √${form.width}`, embedding.scaled_tm], ...(form.turned ? []
        : [[`position ${t}`, embedding.positions_tm], ["sum", embedding.sum_tm]])];
      return [
        tokens("The translation so far", pieces.slice(0, t + 1), { newest: true, follows: chosen }),
        rowsAt(trace, `“${pieces[t]}” enters`, enters, t),
        layers.slice(0, limits.layers).map((layer, n) => layerParts(trace, layer, n + 1, t)),
        nextPiece(trace, t),
      ];
    },
    shows: t === 0 ? boxesOf(Math.min(trace.model.decoder_layers, limits.layers)) : {},
  };
}

// The decoder's boxes that the first step shows, by the key of their heading or fold.
function boxesOf(layers) {
  const shown = {
    "": ["decoder.ids", "decoder.embedding", "decoder.positions"],
    next: ["decoder.last_norm", "decoder.output", "decoder.softmax"],
  };
  for (let layer = 1; layer <= layers; layer++) {
    const attentions = ["self", "cross"].map((name) => `decoder.${layer}.${name}_attention`);
    const network = `decoder.${layer}.feed_forward`;
    shown[`layer-${layer}`] = attentions;
    shown[`inside-${layer}`] = [network, ...[...attentions, network].flatMap((box) =>
      [`${box}.sum`, `${box}_norm`])];
  }
  return shown;
}

// Row t of several tensors, below each other: [label, tensor].
function rowsAt(trace, title, stagesOfRow, t) {
  return chosenVectors(trace, title, stagesOfRow.map(([, tensor]) => rowsOf(tensor, null, t + 1)[t]),
    stagesOfRow.map(([label]) => label), stagesOfRow[0][1].shape.at(-1));
}

function layerParts(trace, layer, number, t) {
  const { form } = trace.model;
  const soFar = trace.target.texts.slice(0, t + 1);
  const newest = soFar.at(-1);
  const attentions = [
    ["masked self-attention", layer.self_attention, soFar, true],
    ["cross-attention", layer.cross_attention, trace.source.texts, false],
  ];
  const way = [
    ["enters the layer", layer.self_attention_residual.input_tm],
    ...stages("self-attention", layer.self_attention.output_tm, layer.self_attention_residual, form),
    ...stages("cross-attention", layer.cross_attention.output_tm, layer.cross_attention_residual, form),
    ...stages("feed-forward", layer.feed_forward.output_tm, layer.feed_forward_residual, form),
  ];
  return [
    heading(`Decoder layer ${number}`, `layer-${number}`),
    number === 1 ? text(`How much each head takes for the row of “${newest}”: on the left from the ` +
      "translation so far, on the right from the source (through the memory).") : [],
    sideBySide(attentions.map(([title, { weights_hts }, columns]) =>
      rowOfAllHeads(trace, title, weights_hts, t, columns, true))),
    fold(`Decoder layer ${number}: queries, keys, values, scores, mixes, sums and feed-forward`, [
      attentions.map((attention) => headRows(trace, ...attention, t)),
      rowsAt(trace, `Decoder layer ${number}, the row of “${newest}”, from top to bottom`, way, t),
      rowsAt(trace, `feed-forward, ${innerTitle(form)}`, [[newest, layer.feed_forward.inner_tf]], t),
    ], `inside-${number}`),
  ];
}

// Query, scores and mix of the newest piece, a row per head; of its own attention also key and value.
function headRows(trace, title, attention, columns, isOwn, t) {
  const vectors = (what, tensor) => vectorsOfHeads(trace, `${title}: ${what}`, tensor, t);
  return sideBySide(
    vectors("query", attention.queries_htd),
    isOwn ? [vectors("key", attention.keys_hsd), vectors("value", attention.values_hsd)] : [],
    rowOfAllHeads(trace, `${title}: scores`, attention.scores_hts, t, columns, false),
    vectors("mix", attention.mix_htd),
  );
}

function nextPiece(trace, t) {
  const { form, output_bias, vocabulary_size } = trace.model;
  const { candidates } = trace.predictions[t];
  const last = form.pre_norm ? " after the last normalisation" : "";
  return [
    heading("The next piece", "next"),
    text(
      `The output of the last layer${last} is multiplied by one row of the output matrix for each of ` +
      `the ${formatCount(vocabulary_size)} pieces.`,
      `${output_bias ? "With a bias, this gives" : "This gives"} a logit for each piece. The softmax ` +
      "converts the logits to probabilities."),
    rowsAt(trace, "leaves the decoder", [[trace.target.texts[t], trace.decoder.output_tm]], t),
    bars(candidates, trace.chosen.ids[t]),
    text(shareOfOthers(trace.model, candidates), reasonOf(trace, t)),
  ];
}

function probabilityOfChosen({ predictions, chosen }, t) {
  return predictions[t].candidates.find(({ id }) => id === chosen.ids[t]).probability;
}

// Why the piece of step t was chosen.
function reasonOf(trace, t) {
  const piece = trace.chosen.texts[t];
  const probability = probabilityOfChosen(trace, t);
  const said = formatPercent(probability);
  if (probability >= trace.predictions[t].best.probability - TIE) {
    const end = t + 1 === trace.chosen.ids.length ? " It ends the sentence." : "";
    return `“${piece}” is the most probable piece (${said}), so it is chosen.${end}`;
  }
  return `“${piece}” (${said}) is not the most probable piece, but the translation has reached its ` +
    "maximum length, so it ends here.";
}

function allStepsSection(trace) {
  const rows = trace.target.texts;
  const total = trace.chosen.ids.reduce(
    (sum, _, t) => sum + Math.log(probabilityOfChosen(trace, t)), 0);
  return {
    group: "Result",
    name: "All steps in one pass",
    title: "All steps in one pass",
    lead: "The maps have one row for each step. The mask (grey) lets a row look only at itself and at " +
      "earlier rows, so each row is equal to the row that its step computed. In training, all rows " +
      "are computed in one pass.",
    parts: () => [
      trace.decoder.layers.slice(0, trace.model.limits.layers).map((layer, n) => [
        heading(`Decoder layer ${n + 1}: masked self-attention`),
        weightMaps(trace, layer.self_attention, rows, rows, true),
        headFolds(trace, layer.self_attention, rows, true),
        heading(`Decoder layer ${n + 1}: cross-attention`),
        weightMaps(trace, layer.cross_attention, rows, trace.source.texts, false),
      ]),
      heading("The translation"),
      tokens("chosen", trace.chosen.texts),
      text(`“${trace.made}”. Its log-probability is the sum over the steps, ` +
        `${formatNumber(total)} nats, which is a probability of ${formatPercent(Math.exp(total))}.`),
    ],
    shows: {},
  };
}
