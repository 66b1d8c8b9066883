// The sections of a translation in the order of the forward pass: sentence, encoder, decoder.
//
// A section is {group, name, title, lead, parts, shows}: `parts` draws them, `shows` has the boxes of
// the model's figure that the section shows, by the key of their heading or fold ("": the section).

import { counted, formatNumber } from "../../drawing/numbers.js";
import { stackSections } from "./layers.js";
import { headNames, headVectors, leftOut, vectors } from "./maps.js";
import { cutsOfForm, overviewOf, piecesSection } from "./overview.js";
import { fold, sideBySide, text, tokens } from "../../drawing/parts.js";
import { questionsSection } from "./questions.js";
import { decoderSections } from "./steps.js";

export function sectionsOfTranslation(trace) {
  return [
    overview(trace), piecesSection(trace.source, "encoder", "The last piece, which marks the end of the " +
      "sentence, is always added."), embeddingSection(trace), positionsSection(trace),
    ...stackSections(trace, {
      group: "Encoder", key: "encoder", noun: "Encoder layer", causal: false,
      attends: "Every piece looks at every piece of the sentence",
      layers: trace.encoder.layers, pieces: trace.source.texts,
    }),
    memorySection(trace), ...decoderSections(trace), questionsSection(trace),
  ];
}

// The first section, whose parts stand before and after the model's figure.
export function overview(trace) {
  const { encoder_layers, decoder_layers, form, limits } = trace.model;
  const [source, steps] = [trace.source.ids.length, trace.chosen.ids.length];
  return overviewOf(trace.model, {
    title: "From sentence to translation",
    lead: "An encoder reads the sentence and turns each piece into a row of numbers. A decoder then " +
      "writes the translation piece by piece. It looks at the encoder's rows, and at the pieces that " +
      "it has written so far.",
    noun: "sentence",
    layers: `${encoder_layers} encoder, ${decoder_layers} decoder`,
    about: () => [
      tokens("Source", trace.source.texts),
      tokens("Translation", trace.chosen.texts),
      text("This page follows greedy search: every step takes the most probable piece.",
        beamSearchText(trace)),
      text("Each predicted piece becomes the next input of the decoder, until the decoder predicts " +
        `${trace.chosen.texts.at(-1)}.`),
    ],
    cuts: [
      leftOut(encoder_layers, limits.layers, "encoder layers"),
      leftOut(decoder_layers, limits.layers, "decoder layers"), ...cutsOfForm(form, limits),
      leftOut(source, limits.pieces, "source pieces"),
      leftOut(Math.max(source, steps), limits.attended, "pieces of a map of weights"),
      leftOut(steps, limits.pieces, "decoding steps"),
    ],
  });
}

function beamSearchText({ model, beam, made }) {
  if (beam === null) return "";
  return `The command transloom translate uses beam search, which keeps the best ${model.beam_size} ` +
    `translations at each step, and ${beam === made ? "finds the same translation"
      : `finds “${beam}”`}.`;
}

function embeddingSection(trace) {
  const { form: { width }, share_embeddings } = trace.model;
  const shared = {
    all: "Source, target and output layer use the same matrix.",
    decoder: "The target has another matrix, which the output layer also uses.",
    none: "Source, target and output layer have three separate matrices.",
  };
  return {
    group: "Input",
    name: "Embedding",
    title: "Each id picks a row of numbers",
    lead: `A learned matrix has a row of ${width} numbers for each piece. The rows of our ` +
      `${trace.source.ids.length} pieces are selected, and multiplied by √${width} = ` +
      `${formatNumber(Math.sqrt(width))}, the root of the model's width.`,
    parts: () => [
      vectors(trace, `embedding × √${width}`, trace.encoder.embedding.scaled_tm, trace.source.texts),
      text(shared[share_embeddings]),
    ],
    shows: { "": ["encoder.embedding"] },
  };
}

function positionsSection(trace) {
  const { embedding } = trace.encoder;
  const pieces = trace.source.texts;
  const common = { group: "Input", name: "Positions", title: "Where each piece stands" };
  if (trace.model.form.turned) {
    return {
      ...common,
      lead: "Attention alone does not see the order of the pieces. In this model, no positions are " +
        "added to the embedding. Instead, the self-attention of every layer rotates queries and keys " +
        "by angles that grow with the position, so that their product depends on the distance of two " +
        "pieces.",
      parts: () => [
        vectors(trace, "input of the first layer", embedding.sum_tm, pieces),
        text("The numbers of a head are rotated in pairs, and each pair has a different angle (rotary " +
          "positions): 1 radian per position for the first pair, and " +
          `${trace.model.rotation_of_last_pair} for the last one.`),
      ],
      shows: {},
    };
  }
  const places = pieces.map((_, position) => `position ${position}`);
  return {
    ...common,
    lead: "Attention alone does not see the order of the pieces. Therefore a pattern of sines and " +
      "cosines is added that depends on the position: fast waves on the left, slow waves on the right.",
    parts: () => [sideBySide(
      vectors(trace, "embedding", embedding.scaled_tm, pieces),
      vectors(trace, "+ positions", embedding.positions_tm, places),
      vectors(trace, "= input of the first layer", embedding.sum_tm, pieces),
    )],
    shows: { "": ["encoder.positions"] },
  };
}

function memorySection(trace) {
  const { form, limits } = trace.model;
  const pieces = trace.source.texts;
  const last = form.pre_norm ? "after a last normalisation, " : "";
  const keysAndValues = ({ cross_attention: { keys_hsd, values_hsd } }, n) => fold(
    `Keys and values for decoder layer ${n + 1}`, [sideBySide(headNames(trace).map((name, head) => [
      headVectors(trace, `${name}: keys`, keys_hsd, head, pieces),
      headVectors(trace, `${name}: values`, values_hsd, head, pieces),
    ]))]);
  return {
    group: "Encoder",
    name: "Memory",
    title: "The memory",
    lead: `This is the source sentence as the decoder sees it: ${last}${counted(pieces.length, "row")} ` +
      `of ${form.width} numbers. Each row began as the embedding of one piece, and now also depends on ` +
      "the other pieces.",
    parts: () => [
      vectors(trace, "memory", trace.encoder.output_tm, pieces),
      text("Each decoder layer computes keys and values from the memory with its own matrices and " +
        "biases (x·Wk + bk, x·Wv + bv), once for the whole translation."),
      trace.decoder.layers.slice(0, limits.layers).map(keysAndValues),
    ],
    shows: { "": ["encoder.last_norm", "encoder.memory"] },
  };
}
