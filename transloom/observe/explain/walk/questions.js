// Learners' questions, answered with the numbers of the sentence, in the order of the forward pass.
// A question is [asked, answer, box]: the box of the model's figure that it is about.

import { element } from "../../drawing/elements.js";
import { counted, formatCount, formatNumber } from "../../drawing/numbers.js";
import { softmax, tensor } from "../live/page/tensors.js";
import { aboveZero, sharpestOf } from "./layers.js";
import { whereWeightsAre } from "./overview.js";
import { boxLink, heading, quoting, text } from "../../drawing/parts.js";
import { firstRow, lastLayer, lengthOf, rowsOf } from "./trace.js";

export function questionsSection(trace) {
  return {
    group: "Questions",
    name: "Questions",
    title: "Questions and answers",
    lead: "Short answers with the numbers of this model and this sentence.",
    parts: (id) => {
      const all = questionsOf(trace);
      return [
        element("ol", { class: "contents" }, all.map(([asked], n) =>
          element("li", {}, element("a", { href: `#${id}-question-${n + 1}` }, quoting(asked))))),
        all.map(([asked, answer, box], n) =>
          [heading(asked, `question-${n + 1}`), text(answer), boxLink("Where this page shows it", box)]),
      ];
    },
    shows: {},
  };
}

// What differs between the families: the stack that reads the text, with its pieces and the beginning of
// its boxes, and some words.
const FAMILIES = {
  translation: (trace) => ({
    stack: trace.encoder, pieces: trace.source, key: "encoder", goal: "translate", output: "the memory",
    ofFamily: ofTranslation, outputBox: "encoder.memory",
  }),
  continuation: (trace) => ({
    stack: trace.stack, pieces: trace.pieces, key: "decoder", goal: "predict the next piece",
    output: "the last layer", ofFamily: ofContinuation, outputBox: "decoder.last_norm", isCausal: true,
  }),
  filling: (trace) => ({
    stack: trace.stack, pieces: trace.pieces, key: "encoder", goal: "predict hidden pieces",
    output: "the last layer", ofFamily: ofFilling, outputBox: "encoder.1.feed_forward",
  }),
};

export function questionsOf(trace) {
  const read = { trace, ...FAMILIES[trace.model.family](trace) };
  return [ofInput, ofAttention, ofLayers, read.ofFamily, ofWeights].flatMap((some) => some(read));
}

function ofInput(read) {
  const { trace: { model: { form, embedding_rows, has_waves } }, pieces: { texts, ids }, key, goal } = read;
  const [piece, id] = [texts[0], ids[0]];
  const box = `${key}.embedding`;
  const ofOrder = form.turned ? [howOrderIsKnown(read)] : has_waves ? ofWaves(read) : [ofLearned(read)];
  return [
    ["Is a piece a one-hot vector?",
      `As a one-hot vector, “${piece}” would be ${formatCount(embedding_rows)} numbers, a 1 at place ` +
      `${id} and zeros elsewhere. The product of this vector and the embedding matrix is row ${id} of ` +
      "the matrix, so the model simply selects the row. The following layers read this row of " +
      `${form.width} numbers, which is not one-hot.`, box],
    ["Are these vectors those of word2vec?",
      "No. The embedding matrix is a part of this model, and is trained together with all other " +
      `weights to ${goal}. The vectors of word2vec are trained separately, to predict which words ` +
      "are near each other in texts.", box],
    ...ofOrder,
  ];
}

function ofLearned({ trace, stack: { embedding }, pieces, key }) {
  const [token, position] = [embedding.tokens_tm, embedding.positions_tm].map((row) =>
    formatNumber(lengthOf(firstRow(row))));
  return ["How does the model know the order of the pieces?",
    `A learned row of ${trace.model.form.width} numbers for each position is added to the embedding, so ` +
    `the same piece has other rows elsewhere. For “${pieces.texts[0]}”, the embedding has the length ` +
    `${token}, and the row of its position has the length ${position}.`, `${key}.positions`];
}

function howOrderIsKnown({ trace: { model: { form: { head_width: d }, rotation_of_last_pair } }, key }) {
  return ["Nothing is added to the embedding: how does the model know the order?",
    "In each self-attention, a query at position p is rotated by p times certain angles, and a key at " +
    "position q by q times the same angles. Their product depends only on the difference p − q, so a " +
    `score can depend on the distance of two pieces. The ${d} numbers of a head form ` +
    `${counted(d / 2, "pair")}, with angles from 1 radian per position down to ` +
    `${rotation_of_last_pair}. The large angles distinguish neighbours, the small ones distant ` +
    "pieces.", `${key}.1.self_attention`];
}

function ofWaves({ trace, stack: { embedding }, pieces, key }) {
  const { width } = trace.model.form;
  const scaled = lengthOf(firstRow(embedding.scaled_tm ?? embedding.tokens_tm));
  const last = pieces.ids.length - 1;
  // Sines and cosines of an angle, whose products add up to the cosine of the difference.
  const product = (distance) => formatNumber(Array.from({ length: width / 2 }, (_, i) =>
    Math.cos(distance * 10000 ** ((-2 * i) / width))).reduce((sum, value) => sum + value, 0));
  const further = last > 1 ? `, for 0 and ${last} ${product(last)}` : "";
  const near = last ? `For positions 0 and 1 it is ${product(1)}${further}. ` : "";
  return [
    [`Why is the embedding multiplied by √${width}?`,
      "The paper gives no reason. An effect is that the positions do not dominate the sum: the vector " +
      `of each position has the length √${width / 2} = ${formatNumber(Math.sqrt(width / 2))}. The ` +
      `embedding of “${pieces.texts[0]}” has the length ${formatNumber(scaled)} after the ` +
      `multiplication, and ${formatNumber(scaled / Math.sqrt(width))} before it.`, `${key}.positions`],
    ["How do the vectors of positions show nearness?",
      `The dot product of the vectors of two positions depends only on their distance. ${near}For a ` +
      `position and itself it is ${formatNumber(width / 2)}, which is the maximum.`,
      `${key}.positions`],
  ];
}

function ofAttention(read) {
  const { trace, stack, pieces: { texts: pieces }, key, goal, isCausal } = read;
  const { width, head_width: d, heads, groups, has_biases } = trace.model.form;
  const s = pieces.length;
  const box = `${key}.1.self_attention`;
  const attention = stack.layers[0].self_attention;
  // The first row, or under a mask the last one that is recorded, which sees most pieces.
  const t = isCausal ? Math.min(s, trace.model.limits.pieces) - 1 : 0;
  const scores = rowsOf(attention.scores_hts, 0, t + 1, isCausal ? t + 1 : s)[t];
  const sharesOf = (numbers) => softmax(tensor([numbers.length], numbers)).data;
  const [weights, sharp] = [sharesOf(scores), sharesOf(scores.map((score) => score * Math.sqrt(d)))];
  const top = weights.indexOf(Math.max(...weights));
  const columns = groups === heads
    ? `Each of the ${heads} heads has its own ${d} columns of Wq, Wk and Wv`
    : `Each of the ${heads} heads has its own ${d} columns of Wq. Each of the ${groups} heads of keys ` +
      `and values has ${d} columns of Wk and Wv, and serves ${heads / groups} heads of queries`;
  const [q, k, v] = [..."qkv"].map((name) => `x·W${name}${has_biases ? ` + b${name}` : ""}`);
  return [
    ...intuition(read, attention, box),
    ["Are Q, K and V inputs or outputs? Is Wq the sentence?",
      `Q, K and V are the results of ${q}, ${k} and ${v}, and the inputs of attention. ` +
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
      `“${pieces[t]}” takes ${formatNumber(weights[top])} from “${pieces[top]}”. Without the division, ` +
      `it would take ${formatNumber(sharp[top])}.`, box],
    ["Do heads split the vector, or do they have separate matrices? Are they like convolutions?",
      `${columns}, so each head reads all ${width} numbers of a row. Only the result is split into ` +
      `parts of ${d} numbers. A convolution has fixed weights for neighbours at fixed distances. A ` +
      `head computes its weights from the pieces: for example, “${pieces[t]}” looks most at ` +
      `“${pieces[top]}” in head 1.`, box],
    ["In which order are heads joined, and does it matter?",
      `Head 1 gives numbers 0 to ${d - 1} of the joined row, head 2 the next ${d} numbers, and so on ` +
      `up to number ${width - 1}. Number i is multiplied by row i of Wo. Another order of the heads ` +
      "gives the same result if the rows of Wo are in that order, too.", box],
    ["Which rows are joined, and what does a forgotten permute do?",
      `The rows of one piece: “${pieces[0]}” gets ${d} numbers from each head. Code must permute ` +
      `${heads} × ${s} × ${d} numbers to ${s} × ${heads} × ${d} before it joins them to ${s} × ${width}. Without ` +
      `the permute the shape is the same, but the first row has ${d} numbers of “${pieces[0]}”, then ${d} of ` +
      `${s > 1 ? `“${pieces[1]}”, of the same head` : "the next head"}. Training then learns little, without an error.`, box],
    ["How does a model know what “it” refers to?",
      "No part of the model looks this up. The row of a pronoun takes values from the rows of other " +
      "pieces, with weights like those shown here. Training has changed these weights so that they " +
      `help to ${goal}. A large weight shows which piece a row looked at, but not which piece it ` +
      "needed.", box],
  ];
}

// With the words of the largest weight: not with a mark, and not with a space alone.
function intuition({ trace, pieces: { texts }, isCausal, key }, attention, box) {
  const isWord = (n) => /[\p{L}\p{N}]/u.test(texts[n]) && !/^<[^ ]*>$/.test(texts[n]);
  const found = sharpestOf(trace, attention, (t, s) => t !== s && isWord(t) && isWord(s));
  if (found.weight <= 0) return [];
  const [reader, seen] = [texts[found.t], texts[found.s]];
  const score = rowsOf(attention.scores_hts, found.head, found.t + 1)[found.t]?.[found.s];
  const ofScore = score === undefined ? "" : ` Their product, divided by the root of the head's width, is ` +
    `the score ${formatNumber(score)}.`;
  return [["What do query, key and value mean?",
    `Think of a search: a query says what a row looks for, a key what a row offers, and a value what it ` +
    `passes on. In head ${found.head + 1} of layer 1, the query of “${reader}” fits the key of “${seen}” ` +
    `best of all such pairs${isCausal ? " in which the key comes first" : ""}.${ofScore} “${reader}” therefore ` +
    `takes ${formatNumber(found.weight)} of the value of “${seen}”. The three matrices are learned; no ` +
    "number says what a query means in words.", box]];
}

function ofLayers({ trace, stack, pieces, key, output, outputBox }) {
  const { form, limits, layers, encoder_layers, decoder_layers, dropout, layer_parameters } = trace.model;
  const first = stack.layers[0];
  const residual = first.self_attention_residual;
  const at = (matrix) => formatNumber(firstRow(matrix)[0], 3);
  const piece = pieces.texts[0];
  const [added, then] = form.pre_norm
    ? ["The row before the normalisation", "The sum is passed on unchanged."]
    : ["The input of the sub-layer",
      "The whole row is then normalised, so the input is not passed on unchanged."];
  const { embedding } = stack;
  const carried = [["embedding", embedding.scaled_tm ?? embedding.tokens_tm], ["position", embedding.positions_tm],
    ["segment", embedding.segments_tm]].filter(([, rows]) => rows);
  const [before, after] = [residual.input_tm, lastLayer(stack)].map(firstRow);
  const cosine = before.reduce((sum, value, i) => sum + value * after[i], 0) /
    (lengthOf(before) * lengthOf(after));
  return [
    ["What does a residual connection add, and is anything lost?",
      `${added} is added to the output of the sub-layer, number by number. For “${piece}”, dimension ` +
      `0: ${at(residual.input_tm)} + ${at(first.self_attention.output_tm)} ≈ ${at(residual.sum_tm)}. ` +
      `The two numbers cannot be recovered from their sum. ${then}`, `${key}.1.self_attention.sum`],
    ["What does the first residual connection carry?",
      `The input of layer 1. For “${piece}”, dimension 0: ${carried.map(([name, row]) => `${name} ${at(row)}`).join(" + ")} ` +
      `≈ ${at(embedding.sum_tm)}${embedding.normed_tm ? ", then normalised" : ""}. Each sum adds the output of ` +
      "a sub-layer to it, so later layers can still read which piece stands where.", `${key}.1.self_attention.sum`],
    ["Does the size change from layer to layer?",
      `No. Each of the ${counted(pieces.ids.length, "row")} has ${form.width} numbers after the embedding, after ` +
      `each sub-layer of all ${counted(layers ?? encoder_layers, "layer")}, and at the end: an input can only be ` +
      `added to an output of the same size. Inside, sizes differ: ${form.head_width} numbers in each head, and ` +
      `${form.inner_width} in the feed-forward network.`, outputBox],
    ["Does a residual connection skip the sub-layer? Is it dropout?",
      "Neither. The model always computes the sub-layer, and adds its output to its input. Dropout " +
      `sets a random share of the numbers to zero (${dropout} in this model) and enlarges the others, ` +
      "so that the result does not depend on a few numbers. Dropout is used only in training; this " +
      "page has none.", `${key}.1.self_attention.sum`],
    whyNotLinear(form, piece, firstRow(first.feed_forward.inner_tf), `${key}.1.feed_forward`),
    ["Why so many layers, and do they share weights?",
      `The paper has six layers in each stack; this model has ${layers ?? `${encoder_layers} in the encoder and ` +
      `${decoder_layers} in the decoder`}. The best ` + "number is found by experiment. Layers do not share weights: each layer of the " +
      `${key} has ${formatCount(layer_parameters)} parameters.`,
      `${key}.${Math.min(layers ?? encoder_layers, limits.layers, 2)}.feed_forward`],
    ["Do later layers become more abstract?",
      `The page can measure how much a row changes: the cosine between the row of “${piece}” before ` +
      `layer 1 and after the last layer is ${formatNumber(cosine)} (1 means the same ` +
      "direction). No number on this page shows whether a row represents something abstract.",
      outputBox],
  ];
}

function whyNotLinear(form, piece, inner, box) {
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

// What training would show without the mask, with two pieces of a decoder.
function withoutMask({ texts }, box) {
  const last = texts.length - 1;
  const example = last ? ` the row of “${texts[last - 1]}” must predict “${texts[last]}”, which is the ` +
    "input of the next row." : " each row must predict the piece that is the input of the next row.";
  return ["What would happen without the mask?",
    `In training,${example} Without the mask, it could copy the answer from there: the loss would be ` +
    "close to 0, and the model would learn nothing else. When it writes, no next piece is there to copy.",
    box];
}

const ofClassifying = (answer, box) => ["Do I need a decoder to classify a text?", answer, box];
const ofLengths = (answer, box) => ["Why can input and output have different lengths?", answer, box];

function ofTranslation({ trace }) {
  const { form, stacks } = trace.model;
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
    withoutMask(trace.target, "decoder.1.self_attention"),
    ["Is decoding parallel? And training?",
      "Decoding is sequential: each step needs the piece that the previous step chose, so it takes " +
      `${counted(steps, "step")} here. Training is parallel: the correct translation is known, so all ` +
      "rows are computed in one pass, and the mask hides later pieces from each row.",
      "decoder.softmax"],
    ofLengths(`Each stack has its own rows: ${s} for the source, and one for each of ` +
      `${counted(steps, "step")}. Weights of cross-attention form a table of ${steps} × ${s}, whatever ` +
      `these numbers are. The translation ends when “${trace.chosen.texts.at(-1)}” is chosen.`,
    "decoder.1.cross_attention"),
    ofClassifying("No. An encoder reads the text, and a matrix with a row for each label turns one of its " +
      `rows into scores, as in BERT. The decoder, with ${formatCount(stacks[1])} of this model's ` +
      "parameters, is needed to write a text of unknown length.", "encoder.memory"),
    ["How are padding, batches and long sentences handled?",
      "This page has one sentence, so there is no padding. In a batch, shorter sentences are padded at " +
      "the end. The scores of padding are −∞, so that its weights are 0. " +
      `${form.turned ? "Angles" : "Sines and cosines"} are defined for every position, but ` +
      "a model has learned nothing about sentences longer than those of its training.", "encoder.ids"],
  ];
}

function ofContinuation({ trace }) {
  const { chosen, given, pieces } = trace;
  const steps = counted(chosen.ids.length, "step");
  return [
    withoutMask({ texts: pieces.texts.slice(0, given) }, "decoder.1.self_attention"),
    ["Is writing parallel? And training?",
      `Writing is sequential: each of ${steps} needs the piece that the step before chose. Training is ` +
      "parallel: the text is known, so one pass predicts all of its pieces, and the mask hides later ones.",
      "decoder.softmax"],
    ofLengths(`The model predicts one piece after each row and appends it: ${counted(given, "piece")} ` +
      `became ${given + chosen.ids.length} in ${steps}. It can stop after any piece, when it predicts the ` +
      "end of a document.", "decoder.ids"),
    ofClassifying("No decoder with cross-attention is needed, and this model has none. The row of the last " +
      `piece, “${pieces.texts[given - 1]}”, has seen the whole text, so a matrix with a row for each label ` +
      "could read it. An encoder is more usual, because all of its rows see the whole text.",
    "decoder.softmax"),
  ];
}

function ofFilling({ trace: { pieces, places, predictions } }) {
  const hidden = pieces.texts[places[0]];
  return [
    ["Why does no mask hide later pieces?",
      `Each row may see all pieces, because the answers are not among them: “${hidden}” stands at each ` +
      `hidden place. Its row must find “${predictions[0].best.text}” or another piece from both sides.`,
      "encoder.1.self_attention"],
    ofLengths(`Here they cannot: ${counted(pieces.ids.length, "piece")} give as many rows, and each hidden ` +
      "piece is replaced by exactly one. A decoder that writes step by step has no such limit.",
    "head.softmax"),
    ofClassifying("No. This model has no decoder: its head reads the rows of hidden pieces. For a label, " +
      `another head reads the row of the first piece, “${pieces.texts[0]}”, and gives a score for each ` +
      "label. Such a model can start from this encoder (trainer.init_from).", "head.dense"),
  ];
}

function ofWeights({ trace: { model }, key }) {
  const { checkpoint } = model;
  return [
    ["How many weights are there, and where?", `There are ${whereWeightsAre(model)}.`, `${key}.embedding`],
    ["Where do the weights come from?",
      "Matrices begin as random numbers, gains as ones, and biases as zeros. Each training step " +
      "changes them a little, so that the correct pieces become more probable. This page shows the " +
      `weights of ${checkpoint}.`, key === "decoder" ? "decoder.output" : `${key}.embedding`],
  ];
}
