// The sections of a text in the order of the forward pass: how a language model continues it, and how a
// masked model fills it in. A section is described in translation.js.

import { counted, formatCount, formatNumber, formatPercent } from "../../drawing/numbers.js";
import { stackSections } from "./layers.js";
import { leftOut, vectors } from "./maps.js";
import { cutsOfForm, overviewOf, piecesSection } from "./overview.js";
import { bars, fold, heading, shareOfOthers, table, text, tokens } from "../../drawing/parts.js";
import { questionsSection } from "./questions.js";
import { meanOf } from "../live/page/tensors.js";

const LEAST = 1e-38; // of a probability, whose logarithm is finite

export function sectionsOfContinuation(trace) {
  return [
    overviewOfContinuation(trace),
    piecesSection(trace.pieces, "decoder", (trace.is_cut ? "The text is longer than the model's context, " +
      `so only its last ${trace.given} pieces are read. ` : "The first piece only marks the beginning. " +
      `The next ${trace.given - 1} are the given text. `) + "The model has added all others."),
    vectorsSection(trace, "decoder"),
    ...stackSections(trace, {
      group: "Layers", key: "decoder", noun: "Layer", causal: true,
      attends: "Every piece looks at itself and at earlier pieces, never at later ones (grey)",
      layers: trace.stack.layers, pieces: trace.pieces.texts,
    }),
    nextPieceSection(trace), stepsSection(trace), placesSection(trace), questionsSection(trace),
  ];
}

export function sectionsOfFilling(trace) {
  return [
    overviewOfFilling(trace),
    piecesSection(trace.pieces, "encoder", "The first and the last piece mark the beginning and the end of " +
      "the text. [MASK] is replaced by a special piece, which no text contains."),
    vectorsSection(trace, "encoder"),
    ...stackSections(trace, {
      group: "Encoder", key: "encoder", noun: "Layer", causal: false,
      attends: "Every piece looks at every piece of the text, before and after it",
      layers: trace.stack.layers, pieces: trace.pieces.texts,
    }),
    statesSection(trace), hiddenSection(trace), questionsSection(trace),
  ];
}

function overviewOfText({ model, pieces }, said) {
  const { form, limits, layers } = model;
  return overviewOf(model, {
    ...said, noun: "text", layers: String(layers),
    cuts: [
      leftOut(layers, limits.layers, "layers"), ...cutsOfForm(form, limits),
      leftOut(pieces.ids.length, limits.pieces, "pieces of a map of vectors"),
      leftOut(pieces.ids.length, limits.attended, "pieces of a map of weights"),
    ],
  });
}

function overviewOfContinuation(trace) {
  return overviewOfText(trace, {
    title: "From a text to its continuation",
    lead: "The model reads a text, and predicts for each piece the probability that it comes next. One " +
      "piece is chosen and appended to the text, and the model predicts the next piece. It repeats " +
      "this, and does nothing else.",
    about: () => [
      tokens("Text", trace.pieces.texts.slice(0, trace.given)),
      tokens("Goes on", trace.chosen.texts),
      text(howChosen(trace), `The result is “${trace.text}${trace.made}”.`),
    ],
  });
}

function howChosen({ chosen, sampling }) {
  const steps = counted(chosen.ids.length, "step");
  if (!sampling) {
    return `This page follows greedy search for ${steps}, each of which takes the most probable piece. ` +
      "The command transloom generate instead draws pieces at random according to their probabilities, " +
      "unless decoding.temperature is 0.";
  }
  const { temperature, top_k, top_p, seed } = sampling;
  return `This page draws a piece at random in each of ${steps}, as transloom generate does with ` +
    `temperature ${temperature}, top-k ${top_k}, top-p ${top_p} and seed ${seed}.`;
}

function overviewOfFilling(trace) {
  return overviewOfText(trace, {
    title: "From a text to its hidden pieces",
    lead: "An encoder reads the whole text, and turns each piece into a row of numbers that depends on " +
      "all other pieces. From the row of a hidden piece, a head predicts which piece it was.",
    about: () => [
      tokens("Pieces", trace.pieces.texts),
      text(`With the most probable pieces, the text is “${trace.made}”. If several pieces are hidden, ` +
        "the model predicts each of them without the predictions for the others."),
    ],
  });
}

function vectorsSection(trace, key) {
  const { form, has_waves, boxes } = trace.model;
  const { embedding } = trace.stack;
  const pieces = trace.pieces.texts;
  const map = (title, tensor, labels = pieces) => vectors(trace, title, tensor, labels);
  const order = has_waves
    ? "Therefore a pattern of sines and cosines is added that depends on the position: fast waves on " +
      "the left, slow waves on the right."
    : "Therefore a learned row of numbers for the position is added.";
  const sides = trace.is_pair
    ? "Each side of this pair has its own vector. Positions restart at the second side."
    : "A single text has one side, so all rows get the same vector.";
  return {
    group: "Input",
    name: "Vectors and positions",
    title: "Each id picks a row of numbers",
    lead: `A learned matrix has a row of ${form.width} numbers for each piece. The rows of our ` +
      `${pieces.length} pieces are selected.`,
    parts: () => [
      map(has_waves ? `embedding × √${form.width}` : "embedding", embedding.tokens_tm),
      embedding.positions_tm
        ? [text(`Attention alone does not see the order of the pieces. ${order}`),
          map("+ positions", embedding.positions_tm, trace.positions.map((n) => `position ${n}`))]
        : text("No positions are added to the embedding. Instead, every layer rotates queries and keys " +
            "by their position (rotary positions)."),
      embedding.segments_tm
        ? [text(`A third vector shows to which side of a pair a piece belongs. ${sides}`),
          map("+ segments", embedding.segments_tm)] : [],
      embedding.positions_tm ? map("= sum", embedding.sum_tm) : [],
      embedding.normed_tm ? map("layer normalisation", embedding.normed_tm) : [],
    ],
    shows: { "": ["embedding", "positions", "segments", "embedding_norm"].map((box) => `${key}.${box}`)
      .filter((box) => boxes.includes(box)) },
  };
}

function nextPieceSection(trace) {
  const [piece, chosen] = [trace.pieces.texts[trace.given - 1], trace.chosen.texts[0]];
  const { candidates } = trace.predictions[trace.given - 1];
  return {
    group: "Result",
    name: "The next piece",
    title: `After “${piece}” comes “${chosen}”`,
    lead: "The last layer's row for the end of the text is normalised once more, and compared with all " +
      `${formatCount(trace.model.vocabulary_size)} pieces.`,
    parts: () => [
      vectors(trace, "leaves the decoder", trace.states_nm, [piece]),
      text("The product of this row and a piece's row in the output matrix is the piece's logit. The " +
        "softmax converts logits to probabilities."),
      bars(candidates, trace.chosen.ids[0]),
      text(shareOfOthers(trace.model, candidates)),
      trace.controls ? [heading("Draw the next piece"), text("A temperature above 0 draws pieces at " +
        "random: logits are divided by the temperature, and a low one prefers probable pieces. Top-k " +
        "keeps the k most probable pieces (0: all), and top-p the smallest set of them with this " +
        "probability in total. The seed determines the random numbers."), trace.controls] : [],
      drawnFrom(trace, 0),
    ],
    shows: { "": ["decoder.last_norm", "decoder.output", "decoder.softmax"] },
  };
}

function stepsSection(trace) {
  return {
    group: "Result",
    name: "Step by step",
    title: "The continuation, step by step",
    lead: "The input of each step is the piece that the previous step chose. The keys and values of " +
      "earlier pieces are still stored, so each step computes only one row.",
    parts: () => trace.chosen.texts.map((chosen, step) => {
      const soFar = trace.pieces.texts.slice(0, trace.given + step);
      return fold(`${step + 1}: “${soFar.at(-1)}” → “${chosen}”`, [
        tokens("The text so far", soFar.slice(-trace.model.limits.pieces), { newest: true, follows: chosen }),
        bars(trace.predictions[trace.given - 1 + step].candidates, trace.chosen.ids[step]),
        drawnFrom(trace, step),
      ]);
    }),
    shows: {},
  };
}

// The pieces from which a step drew, and the number that was drawn; nothing in greedy search.
function drawnFrom({ draws, model: { limits } }, step) {
  if (!draws?.length) return [];
  const { id, uniform, kept } = draws[step];
  const place = kept.findIndex((one) => one.id === id);
  const shown = kept.filter((_, n) => n < limits.candidates || n === place);
  const total = kept.at(-1).sum;
  return [
    text(`The number drawn in [0, 1) is ${formatNumber(uniform, 4)}. Times the sum of ` +
      `${counted(kept.length, "kept piece")}, ${formatNumber(total, 4)}, it is ` +
      `${formatNumber(uniform * total, 4)}: the first piece is taken whose sum is larger.`),
    table(["kept", "probability with this temperature", "sum so far"], shown.map(({ text: piece, probability, sum }) =>
      [piece, formatPercent(probability), formatNumber(sum, 4)]), shown.indexOf(kept[place])),
  ];
}

// The prediction at every position, and the resulting loss of training.
function placesSection(trace) {
  const { ids, texts } = trace.pieces;
  const came = ids.map((_, t) => (t + 1 < ids.length ? { id: ids[t + 1], text: texts[t + 1] }
    : { id: trace.chosen.ids.at(-1), text: trace.chosen.texts.at(-1) }));
  const probabilities = came.map(({ id }, t) =>
    trace.predictions[t].candidates.find((one) => one.id === id).probability);
  const losses = probabilities.map((probability) => -Math.log(Math.max(probability, LEAST)));
  const own = losses.slice(0, trace.given - 1);
  return {
    group: "Result",
    name: "Every place",
    title: "The prediction at every position",
    lead: "One pass gives a prediction after every piece, because no piece looks at later pieces. " +
      "Training compares all predictions with the text: the loss of a piece is minus the logarithm of " +
      "its probability.",
    parts: () => [
      table(["after", "likeliest", "came", "its probability", "loss, nats"], came.map((next, t) => {
        const [best] = trace.predictions[t].candidates;
        return [texts[t], `${best.text} (${formatPercent(best.probability)})`, next.text,
          formatPercent(probabilities[t]), formatNumber(losses[t])];
      })),
      text(own.length ? `Over the ${own.length} pieces of the given text, the mean is ` +
        `${formatNumber(meanOf(own))} nats. The model itself chose the pieces after them.`
        : "The model itself chose all of these pieces."),
    ],
    shows: {},
  };
}

function statesSection(trace) {
  const { form } = trace.model;
  const last = form.pre_norm ? " (after a last normalisation)" : "";
  return {
    group: "Encoder",
    name: "Hidden states",
    title: "The output of the encoder",
    lead: `The output of the encoder${last} is a row of ${form.width} numbers for each piece. Each row ` +
      "began as the embedding of one piece, and now also depends on the other pieces.",
    parts: () => [
      vectors(trace, "hidden states", trace.stack.output_tm, trace.pieces.texts),
      text("The head reads only the rows of hidden pieces."),
    ],
    shows: { "": ["encoder.last_norm"] },
  };
}

function hiddenSection(trace) {
  const { form, limits, vocabulary_size, activation } = trace.model;
  const names = trace.places.map((_, n) => `[MASK] ${n + 1}`);
  const map = (title, tensor) => vectors(trace, title, tensor, names);
  const candidatesOf = (place, n) => {
    const { candidates, best } = trace.predictions[n];
    const [before, after] = [place - 1, place + 1].map((at) => trace.pieces.texts[at]);
    return [
      heading(`${names[n]}, between “${before}” and “${after}”`),
      bars(candidates, best.id),
      text(`The most probable piece is “${best.text}”, with ${formatPercent(best.probability)}. ` +
        shareOfOthers(trace.model, candidates)),
    ];
  };
  return {
    group: "Result",
    name: "What is hidden",
    title: "Which pieces were hidden?",
    lead: "The head compares the row of each hidden piece with all pieces of the vocabulary. In " +
      "training, the loss is minus the logarithm of the correct piece's probability.",
    parts: () => [
      map("leaves the encoder", trace.states_nm),
      text(`The head multiplies the row by a matrix, adds a bias, and applies ${activation} and a layer ` +
        "normalisation."),
      map(`the head's layer, after ${activation}`, trace.inner_nm),
      map("layer normalisation", trace.normed_nm),
      text(
        `The result is multiplied by the row of each of the ${formatCount(vocabulary_size)} pieces in ` +
        "the embedding matrix, which is also the output matrix. With a bias, this gives a logit for each " +
        "piece. The softmax converts the logits to probabilities."),
      trace.places.slice(0, limits.pieces).map(candidatesOf),
    ],
    shows: { "": ["head.dense", "head.norm", "head.output", "head.softmax"] },
  };
}
