// Learners' questions, answered with the numbers of the sentence, in the order of the forward pass.
// A question is [asked, answer, box]: the box of the model's figure that it is about.

import { counted, formatCount, formatNumber } from "../../drawing/numbers.js";
import { softmax, tensor } from "../live/page/tensors.js";
import { aboveZero } from "./layers.js";
import { boxLink, heading, text } from "./parts.js";
import { firstRow, lastLayer, lengthOf, rowsOf } from "./trace.js";

export function questionsSection(trace) {
  return {
    group: "Questions",
    name: "Questions",
    title: "Questions and answers",
    lead: "Short answers with the numbers of this model and this sentence.",
    parts: () => questionsOf(trace).map(([asked, answer, box]) =>
      [heading(asked), text(answer), boxLink("Where this page shows it", box)]),
    shows: {},
  };
}

export function questionsOf(trace) {
  return [ofInput, ofAttention, ofLayers, ofDecoding, ofWeights].flatMap((some) => some(trace));
}

function ofInput(trace) {
  const { form, embedding_rows } = trace.model;
  const { width } = form;
  const { texts, ids } = trace.source;
  const [piece, id] = [texts[0], ids[0]];
  return [
    ["Is a piece a one-hot vector?",
      `As a one-hot vector, “${piece}” would be ${formatCount(embedding_rows)} numbers, a 1 at place ` +
      `${id} and zeros elsewhere. The product of this vector and the embedding matrix is row ${id} of ` +
      "the matrix, so the model simply selects the row. The following layers read this row of " +
      `${width} numbers, which is not one-hot.`, "encoder.embedding"],
    ["Are these vectors those of word2vec?",
      "No. The embedding matrix is a part of this model, and is trained together with all other " +
      "weights to translate. The vectors of word2vec are trained separately, to predict which words " +
      "are near each other in texts.", "encoder.embedding"],
    ...(form.turned ? [howOrderIsKnown(trace)] : ofAddedPositions(trace)),
  ];
}

function howOrderIsKnown({ model: { form: { head_width: d }, rotation_of_last_pair } }) {
  return ["Nothing is added to the embedding: how does the model know the order?",
    "In each self-attention, a query at position p is rotated by p times certain angles, and a key at " +
    "position q by q times the same angles. Their product depends only on the difference p − q, so a " +
    `score can depend on the distance of two pieces. The ${d} numbers of a head form ` +
    `${counted(d / 2, "pair")}, with angles from 1 radian per position down to ` +
    `${rotation_of_last_pair}. The large angles distinguish neighbours, the small ones distant ` +
    "pieces.", "encoder.1.self_attention"];
}

function ofAddedPositions(trace) {
  const { width } = trace.model.form;
  const scaled = lengthOf(firstRow(trace.encoder.embedding.scaled_tm));
  const last = trace.source.ids.length - 1;
  // Sines and cosines of an angle, whose products add up to the cosine of the difference.
  const product = (distance) => formatNumber(Array.from({ length: width / 2 }, (_, i) =>
    Math.cos(distance * 10000 ** ((-2 * i) / width))).reduce((sum, value) => sum + value, 0));
  const further = last > 1 ? `, for 0 and ${last} ${product(last)}` : "";
  const near = last ? `For positions 0 and 1 it is ${product(1)}${further}. ` : "";
  return [
    [`Why is the embedding multiplied by √${width}?`,
      "The paper gives no reason. An effect is that the positions do not dominate the sum: the vector " +
      `of each position has the length √${width / 2} = ${formatNumber(Math.sqrt(width / 2))}. The ` +
      `embedding of “${trace.source.texts[0]}” has the length ${formatNumber(scaled)} after the ` +
      `multiplication, and ${formatNumber(scaled / Math.sqrt(width))} before it.`, "encoder.positions"],
    ["How do the vectors of positions show nearness?",
      `The dot product of the vectors of two positions depends only on their distance. ${near}For a ` +
      `position and itself it is ${formatNumber(width / 2)}, which is the maximum.`,
      "encoder.positions"],
  ];
}

function ofAttention(trace) {
  const { form } = trace.model;
  const { width, head_width: d, heads, groups } = form;
  const pieces = trace.source.texts;
  const s = pieces.length;
  const box = "encoder.1.self_attention";
  const [scores] = rowsOf(trace.encoder.layers[0].self_attention.scores_hts, 0, 1);
  const sharesOf = (numbers) => softmax(tensor([numbers.length], numbers)).data;
  const [weights, sharp] = [sharesOf(scores), sharesOf(scores.map((score) => score * Math.sqrt(d)))];
  const top = weights.indexOf(Math.max(...weights));
  const columns = groups === heads
    ? `Each of the ${heads} heads has its own ${d} columns of Wq, Wk and Wv`
    : `Each of the ${heads} heads has its own ${d} columns of Wq. Each of the ${groups} heads of keys ` +
      `and values has ${d} columns of Wk and Wv, and serves ${heads / groups} heads of queries`;
  return [
    ["Are Q, K and V inputs or outputs? Is Wq the sentence?",
      "Q, K and V are the results of x·Wq + bq, x·Wk + bk and x·Wv + bv, and the inputs of attention. " +
      `The sentence is in x, ${s} × ${width} numbers. Wq is a learned matrix of ${width} × ${width} ` +
      "numbers, which is the same for every sentence.", box],
    ["Why is K transposed, and which shapes fit?",
      "The product of an (a × b) and a (b × c) matrix is (a × c). In one head, Q and K are both " +
      `${s} × ${d}. The transposed K is ${d} × ${s}, and Q·Kᵀ is ${s} × ${s}: it has one score for ` +
      "each pair of pieces.", box],
    [`Why is a score divided by √${d}, and why a softmax?`,
      `A dot product is a sum of ${d} products, so it tends to grow with √${d} = ` +
      `${formatNumber(Math.sqrt(d))}. Dividing by this number keeps scores at a similar size for every ` +
      "width of the heads. The softmax converts scores to weights above 0 that add up to 1. In head 1, " +
      `“${pieces[0]}” takes ${formatNumber(weights[top])} from “${pieces[top]}”. Without the division, ` +
      `it would take ${formatNumber(sharp[top])}.`, box],
    ["Do heads split the vector, or do they have separate matrices? Are they like convolutions?",
      `${columns}, so each head reads all ${width} numbers of a row. Only the result is split into ` +
      `parts of ${d} numbers. A convolution has fixed weights for neighbours at fixed distances. A ` +
      `head computes its weights from the pieces: for example, “${pieces[0]}” looks most at ` +
      `“${pieces[top]}” in head 1.`, box],
    ["In which order are heads joined, and does it matter?",
      `Head 1 gives numbers 0 to ${d - 1} of the joined row, head 2 the next ${d} numbers, and so on ` +
      `up to number ${width - 1}. Number i is multiplied by row i of Wo. Another order of the heads ` +
      "gives the same result if the rows of Wo are in that order, too.", box],
    ["How does a model know what “it” refers to?",
      "No part of the model looks this up. The row of a pronoun takes values from the rows of other " +
      "pieces, with weights like those shown here. Training has changed these weights so that they " +
      "help to translate. A large weight shows which piece a row looked at, but not which piece it " +
      "needed.", box],
  ];
}

function ofLayers(trace) {
  const { form, encoder_layers, decoder_layers, dropout, encoder_layer } = trace.model;
  const first = trace.encoder.layers[0];
  const residual = first.self_attention_residual;
  const at = (matrix) => formatNumber(firstRow(matrix)[0], 3);
  const piece = trace.source.texts[0];
  const [added, then] = form.pre_norm
    ? ["The row before the normalisation", "The sum is passed on unchanged."]
    : ["The input of the sub-layer",
      "The whole row is then normalised, so the input is not passed on unchanged."];
  const [before, after] = [residual.input_tm, lastLayer(trace.encoder)].map(firstRow);
  const cosine = before.reduce((sum, value, i) => sum + value * after[i], 0) /
    (lengthOf(before) * lengthOf(after));
  return [
    ["What does a residual connection add, and is anything lost?",
      `${added} is added to the output of the sub-layer, number by number. For “${piece}”, dimension ` +
      `0: ${at(residual.input_tm)} + ${at(first.self_attention.output_tm)} ≈ ${at(residual.sum_tm)}. ` +
      `The two numbers cannot be recovered from their sum. ${then}`, "encoder.1.self_attention.sum"],
    ["Does a residual connection skip the sub-layer? Is it dropout?",
      "Neither. The model always computes the sub-layer, and adds its output to its input. Dropout " +
      `sets a random share of the numbers to zero (${dropout} in this model) and enlarges the others, ` +
      "so that the result does not depend on a few numbers. Dropout is used only in training; this " +
      "page has none.", "encoder.1.self_attention.sum"],
    whyNotLinear(form, piece, firstRow(first.feed_forward.inner_tf)),
    ["Why so many layers, and do they share weights?",
      `The paper has six layers in each stack; this model has ${encoder_layers} in the encoder and ` +
      `${decoder_layers} in the decoder. The best number is found by experiment. Layers do not share ` +
      `weights: each encoder layer has ${formatCount(encoder_layer)} parameters.`,
      `encoder.${Math.min(encoder_layers, 2)}.feed_forward`],
    ["Do later layers become more abstract?",
      `The page can measure how much a row changes: the cosine between the row of “${piece}” before ` +
      `layer 1 and after layer ${encoder_layers} is ${formatNumber(cosine)} (1 means the same ` +
      "direction). No number on this page shows whether a row represents something abstract.",
      "encoder.memory"],
  ];
}

function whyNotLinear(form, piece, inner) {
  const box = "encoder.1.feed_forward";
  const linear = "A linear layer learns a weighted sum of numbers. Two linear layers with nothing " +
    "between them are equivalent to one:";
  if (form.is_gated) {
    return ["Why a gate between the linear layers?",
      `${linear} x·W·W₂ = x·(W·W₂). Here, SiLU is applied to x·W: it keeps large positive numbers, and ` +
      "brings large negative ones close to zero. The result is multiplied by x·V, number by number, " +
      `and so determines which share of x·V is passed on. For “${piece}”, this gives ${inner.length} ` +
      "numbers.", box];
  }
  const bends = form.activation === "relu" ? "sets negative numbers to zero"
    : "keeps large positive numbers and brings large negative ones close to zero";
  return [`Why linear layers, and why the ${form.bend} between them?`,
    `${linear} x·W₁·W₂ = x·(W₁·W₂). The ${form.bend} ${bends}, so that two layers can compute more than ` +
    `one. For “${piece}”, ${aboveZero(inner)} of ${inner.length} are above zero.`, box];
}

function ofDecoding(trace) {
  const [steps, s] = [trace.chosen.ids.length, trace.source.ids.length];
  const start = trace.target.texts[0];
  const [cross] = rowsOf(trace.decoder.layers[0].cross_attention.weights_hts, 0, 1);
  const top = cross.indexOf(Math.max(...cross));
  return [
    ["Where do the queries and keys of cross-attention come from?",
      "Queries are computed from the decoder's rows, one for each piece so far. Keys and values are " +
      `computed from the memory, which has ${counted(s, "row")} for the source. In step 1, head 1 of ` +
      `layer 1, “${start}” takes ${formatNumber(cross[top])} from “${trace.source.texts[top]}”.`,
      "decoder.1.cross_attention"],
    ["What is masked attention for? Does the mask depend on the direction of English?",
      "The result of masked attention is added to the row from which cross-attention computes its " +
      "query. What has been written so far therefore determines what the query looks for. The mask " +
      "hides pieces that are written later, in every direction of writing: in Arabic (“أنا طالب”), the " +
      `first piece is on the right. In step 1, “${start}” sees itself alone, with weight 1. In step ` +
      `${steps}, it sees ${counted(steps, "piece")}.`, "decoder.1.self_attention"],
    ["Is decoding parallel? And training?",
      "Decoding is sequential: each step needs the piece that the previous step chose, so it takes " +
      `${counted(steps, "step")} here. Training is parallel: the correct translation is known, so all ` +
      "rows are computed in one pass, and the mask hides later pieces from each row.",
      "decoder.softmax"],
    ["How are padding, batches and long sentences handled?",
      "This page has one sentence, so there is no padding. In a batch, shorter sentences are padded at " +
      "the end. The scores of padding are −∞, so that its weights are 0. " +
      `${trace.model.form.turned ? "Angles" : "Sines and cosines"} are defined for every position, but ` +
      "a model has learned nothing about sentences longer than those of its training.", "encoder.ids"],
  ];
}

function ofWeights({ model: { parameters, stacks, checkpoint } }) {
  const [encoder, decoder] = stacks;
  return [
    ["How many weights are there, and where?",
      `There are ${formatCount(parameters)}: ${formatCount(encoder)} in the encoder's layers, ` +
      `${formatCount(decoder)} in the decoder's layers, and ` +
      `${formatCount(parameters - encoder - decoder)} in embeddings and other parts outside the ` +
      "layers.", "decoder.embedding"],
    ["Where do the weights come from?",
      "Matrices begin as random numbers, gains as ones, and biases as zeros. Each training step " +
      "changes them a little, so that the correct pieces become more probable. This page shows the " +
      `weights of ${checkpoint}.`, "decoder.output"],
  ];
}
