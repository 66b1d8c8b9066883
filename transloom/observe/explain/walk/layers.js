// The sections about the layers of a stack: two for each layer that is shown.
//
// A stack is {group, key, noun, attends, causal, layers, pieces}: the words of its sections, `key` the
// prefix of its boxes in the model's figure; under a causal mask a row sees itself and earlier ones.

import { counted, formatNumber } from "../../drawing/numbers.js";
import { headNames, headVectors, scoresOfHead, vectors, weightsOfHead } from "./maps.js";
import { fold, heading, sideBySide, table, text } from "../../drawing/parts.js";
import { meanOf } from "../live/page/tensors.js";
import { firstRow, lengthOf, rowsOf } from "./trace.js";

export function stackSections(trace, stack) {
  return stack.layers.slice(0, trace.model.limits.layers).flatMap((layer, n) =>
    [attentionSection(trace, stack, layer, n + 1), restSection(trace, stack, layer, n + 1)]);
}

function attentionSection(trace, stack, layer, number) {
  const { form } = trace.model;
  const { pieces } = stack;
  const attention = layer.self_attention;
  const key = `${stack.key}.${number}.self_attention`;
  return {
    group: stack.group,
    name: `Layer ${number}: attention`,
    title: `${stack.noun} ${number}: self-attention`,
    lead: `${stack.attends}, in ${form.heads} heads in parallel. A row shows how much its piece ` +
      "takes of the value of each column; a row adds up to 1.",
    parts: () => [
      form.pre_norm ? [
        text("This model normalises the input of each sub-layer (pre-norm). Attention reads these " +
          "normalised rows."),
        vectors(trace, `${form.norm_label} of the input`, layer.self_attention_residual.normed_tm, pieces),
      ] : [],
      weightMaps(trace, attention, pieces, pieces, stack.causal),
      sharpestRow(trace, attention, pieces, stack.causal),
      number === 1 ? byHand(trace, attention, pieces, stack.causal) : [],
      heading("The numbers of each head"),
      projectionsText(form),
      headFolds(trace, attention, pieces, stack.causal),
      heading("The heads joined"),
      joinText(form),
      vectors(trace, "output of the attention", attention.output_tm, pieces),
    ],
    shows: { "": [key, ...(form.pre_norm ? [`${key}_norm`] : [])] },
  };
}

function restSection(trace, stack, layer, number) {
  const { form } = trace.model;
  const { pieces } = stack;
  const [first, second] = [layer.self_attention_residual, layer.feed_forward_residual];
  const key = `${stack.key}.${number}`;
  const map = ([label, tensor]) => vectors(trace, label, tensor, pieces);
  const attended = stages("output of the attention", layer.self_attention.output_tm, first, form);
  const fed = stages("output of the network", layer.feed_forward.output_tm, second, form);
  const inner = [innerTitle(form), layer.feed_forward.inner_tf];
  return {
    group: stack.group,
    name: `Layer ${number}: the rest`,
    title: `${stack.noun} ${number}: sum, norm, feed-forward`,
    lead: "The output of attention is added to its input (the residual connection). " +
      `${afterTheSum(form)} A small network then processes each row separately, and its output is ` +
      "added in the same way.",
    parts: () => [
      heading("Around the attention", "sum"),
      [["input of the layer", first.input_tm], ...attended].map(map),
      residualText(first, form, pieces[0]),
      heading("Feed-forward network", "network"),
      feedForwardText(layer.feed_forward, form, pieces[0]),
      (form.pre_norm ? [fed[0], inner, ...fed.slice(1)] : [inner, ...fed]).map(map),
    ],
    shows: {
      sum: [`${key}.self_attention.sum`, ...(form.pre_norm ? [] : [`${key}.self_attention_norm`])],
      network: ["feed_forward", "feed_forward.sum", "feed_forward_norm"].map((box) => `${key}.${box}`),
    },
  };
}

// Neither form may claim that no information is lost.
function afterTheSum(form) {
  if (form.pre_norm) {
    return "The sum is passed on unchanged, so it still contains the input as a summand.";
  }
  return "The sum is then normalised, so the input is passed on as a part of the sum, rescaled " +
    "together with the output of attention.";
}

// The attention weights of every head, side by side.
export function weightMaps(trace, attention, rows, columns, causal) {
  return sideBySide(headNames(trace).map((name, head) =>
    weightsOfHead(trace, name, attention.weights_hts, head, rows, columns, causal)));
}

// A fold for each head with its queries, keys, values, scores, weights and mix.
export function headFolds(trace, attention, pieces, causal) {
  const { head_width: d } = trace.model.form;
  return headNames(trace).map((name, head) => {
    const vectorsOf = (title, tensor) => headVectors(trace, title, tensor, head, pieces);
    return fold(`${name}: queries, keys, values, scores, weights, mix`, [sideBySide(
      vectorsOf("queries", attention.queries_htd),
      vectorsOf("keys", attention.keys_hsd),
      vectorsOf("values", attention.values_hsd),
      scoresOfHead(trace, `scores, QKᵀ ÷ √${d}`, attention.scores_hts, head, pieces, pieces),
      weightsOfHead(trace, "weights", attention.weights_hts, head, pieces, pieces, causal),
      vectorsOf("mix, weights · values", attention.mix_htd),
    )]);
  });
}

function projectionsText(form) {
  const [q, k, v] = [..."qkv"].map((name) => (form.has_biases ? ` + b${name}` : ""));
  const shared = form.heads / form.groups;
  return text(
    `From each row x of ${form.width} numbers, three learned matrices` +
    `${form.has_biases ? " and biases" : ""} compute a query x·Wq${q} (what the row looks for), a ` +
    `key x·Wk${k} (by which other rows find it) and a value x·Wv${v} (what it passes on).`,
    shared === 1 ? `Each head has its own ${form.head_width} columns of each matrix.`
      : `Each head has its own ${form.head_width} columns of Wq. Groups of ${shared} heads share ` +
        `those of Wk and Wv, so there are ${form.groups} heads of keys and values (grouped queries).`,
    form.turned ? "Queries and keys are then rotated by their position, so that a score depends on " +
      "the distance of two pieces (rotary positions). The maps show rotated queries and keys." : "",
  );
}

function joinText(form) {
  return text(
    `The mixes of the ${form.heads} heads are joined side by side, head 1 first: ${form.heads} × ` +
    `${form.head_width} = ${form.width} numbers per row.`,
    form.has_biases ? "A matrix combines them, and a bias is added: mix·Wo + bo."
      : "A matrix combines them: mix·Wo.",
  );
}

// The largest weight of all heads and rows that are drawn. Rows that can attend to only one piece,
// such as the first row under a mask, are ignored if there are others.
function sharpestRow(trace, attention, pieces, causal) {
  const from = causal && pieces.length > 1 ? 1 : 0;
  const { weight, head, t, s } = sharpestOf(trace, attention, (row) => row >= from);
  return text(`The largest weight: in head ${head + 1}, “${pieces[t]}” takes ` +
    `${formatNumber(weight)} of its mix from “${pieces[s]}”.`);
}

// The largest weight that is drawn, of the rows and columns that are `allowed`: {weight, head, t, s}.
export function sharpestOf(trace, attention, allowed) {
  const { limits } = trace.model;
  let best = { weight: -1 };
  headNames(trace).forEach((_, head) => {
    rowsOf(attention.weights_hts, head, limits.attended, limits.attended).forEach((line, t) => {
      line.forEach((weight, s) => {
        if (weight > best.weight && allowed(t, s)) best = { weight, head, t, s };
      });
    });
  });
  return best;
}

// One row of head 1, from query and keys to weights; the listed weights add up to 1. Under a mask it
// is the last row that is drawn, which sees most keys.
function byHand(trace, attention, pieces, causal) {
  const { form, limits } = trace.model;
  const place = causal ? Math.min(pieces.length, limits.pieces) - 1 : 0;
  const seen = causal ? place + 1 : pieces.length;
  const at = (tensor) => [...rowsOf(tensor, 0, place + 1, seen)[place]];
  const [scores, weights] = [at(attention.scores_hts), at(attention.weights_hts)];
  const root = Math.sqrt(form.head_width);
  const total = (some) => formatNumber(some.reduce((sum, weight) => sum + weight, 0), 3);
  const lines = scores.slice(0, limits.attended).map((score, s) =>
    [pieces[s], formatNumber(score * root), formatNumber(score), formatNumber(weights[s], 3)]);
  const others = weights.slice(limits.attended);
  if (others.length) {
    lines.push([`${counted(others.length, "other key")}, not listed, together`, "", "", total(others)]);
  }
  lines.push([`all ${counted(weights.length, "key")}`, "", "", total(weights)]);
  const listed = weights.slice(0, limits.attended);
  return [
    heading("One row, by hand"),
    text(
      `This table follows the query of “${pieces[place]}” in head 1. The dot product of the query ` +
      `and a key shows how well they match. Divided by √${form.head_width}, the root of a head's ` +
      "width, it is the score. The softmax converts scores to weights: exp(score) divided by the sum " +
      "over all keys. The mix is the sum of the values, each multiplied by its weight."),
    table(["key", "query · key", `score: ÷ √${form.head_width}`, "weight: softmax"], lines,
      listed.indexOf(Math.max(...listed))),
  ];
}

// How the norm changes the first row.
function residualText(residual, form, label) {
  const x = firstRow(form.pre_norm ? residual.input_tm : residual.sum_tm);
  const y = firstRow(residual.normed_tm);
  if (form.norm_kind === "rms") {
    return text(
      "RMS norm divides every row by the root of its mean square, then multiplies each dimension by " +
      `a learned number, its gain. The root mean square of the row of “${label}” is ` +
      `${formatNumber(rootMeanSquare(x))} before the norm, and ${formatNumber(rootMeanSquare(y))} ` +
      "after it.");
  }
  const then = form.has_biases
    ? "multiplies and shifts each dimension by learned numbers, its gain and its bias"
    : "multiplies each dimension by a learned number, its gain";
  const said = (vector) => {
    const mean = meanOf(vector);
    const deviation = rootMeanSquare(vector.map((value) => value - mean));
    return `mean ${formatNumber(mean)} and standard deviation ${formatNumber(deviation)}`;
  };
  return text(
    `Layer normalisation brings every row to mean 0 and standard deviation 1, then ${then}. The row ` +
    `of “${label}” has ${said(x)} before the norm, and ${said(y)} after it.`);
}

function rootMeanSquare(vector) {
  return lengthOf(vector) / Math.sqrt(vector.length);
}

function feedForwardText(feedForward, form, label) {
  if (form.is_gated) {
    return text(
      `The feed-forward network computes two rows of ${form.inner_width} numbers from each row, x·W ` +
      "and x·V. SiLU, z · sigmoid(z), is applied to the first row, which then gates the second: the " +
      "two rows are multiplied number by number (SwiGLU). The product with W₂ has " +
      `${form.width} numbers. Each row is processed separately.`);
  }
  const inner = firstRow(feedForward.inner_tf);
  const does = form.activation === "relu" ? "sets the negative ones to zero (ReLU)"
    : `brings the negative ones close to zero (${form.bend})`;
  const [first, second] = form.has_biases ? [" + b₁", " + b₂"] : ["", ""];
  return text(
    `The feed-forward network widens each row from ${form.width} to ${form.inner_width} numbers, ` +
    `x·W₁${first}, ${does}, and narrows it again, ·W₂${second}. Each row is processed separately. ` +
    `For “${label}”, ${aboveZero(inner)} of ${inner.length} inner numbers are above zero.`);
}

export function aboveZero(numbers) {
  return numbers.reduce((count, value) => count + (value > 0 ? 1 : 0), 0);
}

export function innerTitle(form) {
  return `inner numbers, after ${form.bend}`;
}

// The stages of a sub-layer as pairs [label, tensor], in the order of computation.
export function stages(name, output_tm, residual, form) {
  const normed = [form.norm_label, residual.normed_tm];
  const added = [[name, output_tm], ["sum: input + output", residual.sum_tm]];
  return form.pre_norm ? [normed, ...added] : [...added, normed];
}
