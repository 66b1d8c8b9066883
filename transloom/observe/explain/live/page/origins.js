// The origin of a number: its formula, and the place of each number that went into it, so that a
// reader can go back from number to number to the embedding.
//
//   originOf(model, traced, cell, switches)
//     ─▶ {formula, product, terms, names, added, divisor, value, note}
//
// `value` is worked out anew from the terms; a test holds it to the tensor's own number. Terms (see
// drawing/terms.js) add up, with `added`, the bias; the sum is divided by √`divisor`, if there is one,
// and the formula says what else happens to it. A softmax has the asked number as the result of a
// term. `product` has the matrices that were multiplied and the signs between them, for
// drawing/product.js. A matrix that enters transposed is there as it lies in memory, then turned.

import { formatPrecise } from "../../../drawing/numbers.js";
import { anglesOf, NOTHING_SWITCHED, outputEmbedding, sourceEmbedding } from "./forward.js";
import { nameOf, numberAt, tensorAt } from "./places.js";
import { ACTIVATIONS, logSumExp, moments, row } from "./tensors.js";

const ACTIVATION_FORMULAS = {
  relu: "max(0, z) (ReLU)",
  gelu: "z · Φ(z), Φ the share of a normal distribution below z (GELU)",
  gelu_tanh: "z / (1 + exp(−2√(2/π)(z + 0.044715z³))) (GELU by tanh)",
  silu: "z / (1 + exp(−z)) (SiLU)",
};

// Matrices of which rows are picked: the kind of each, and to what a row belongs.
const PICKED = {
  E: ["embedding", "piece"], P: ["position", "position"], S: ["segment", "side of the text"],
};

export function originOf(model, traced, cell, switches = NOTHING_SWITCHED) {
  const path = cell.key.split(".");
  const name = path.at(-1);
  const [rows, columns] = tensorAt(traced, cell.key).shape.slice(-2);
  const base = path.slice(0, -1).join(".");
  const context = { model, traced, cell, switches, path, name, base, rows, columns };
  if (cell.key === "logits_tv") return ofLogit(context);
  if (cell.key === "probabilities_tv") return ofSoftmax(context, "logits_tv");
  if (path.length === 1) return ofMaskedHead(context);
  if (path.length === 2) return ofStack(context);
  if (path[1] === "embedding") return ofEmbedding(context);
  if (path[3].endsWith("_residual")) return ofResidual(context);
  return path[3] === "feed_forward" ? ofFeedForward(context) : ofAttention(context);
}

function result(formula, terms, { added = null, value, note = "", product = [] } = {}) {
  const sum = terms.reduce((total, term) => total + term.value, added ?? 0);
  return { formula, terms, added, value: value ?? sum, note, product };
}

// A matrix of a product, and its row or column that went in.
function matrix(name, rows, columns, lit) {
  return { name, rows, columns, row: null, column: null, ...lit };
}

// The asked number in its matrix.
function made({ rows, columns, cell: { row: t, column } }, name) {
  return matrix(name, rows, columns, { row: t, column });
}

// input · weights + b = output; a learned matrix may have a bias for each column.
function affine(context, input, inner, weights, output, bias) {
  const { rows, columns, cell: { row: t, column } } = context;
  return [matrix(input, rows, inner, { row: t }), "·", matrix(weights, inner, columns, { column }),
    ...(bias ? ["+", matrix("b", 1, columns, { column })] : []), "=", made(context, output)];
}

function termAt({ traced }, place, b = null, factor = null) {
  const a = numberAt(traced, place);
  return { place, a, b, factor, value: b === null ? a : a * b };
}

// The numbers of the same row and column in other matrices, added up.
function ofSum(context, formula, keys) {
  return result(formula, keys.map((key) => termAt(context, { ...context.cell, key })));
}

// A number that is the same in another matrix has the origin of that matrix's number.
function same({ model, traced, cell, switches }, key) {
  return originOf(model, traced, { ...cell, key }, switches);
}

// Σ xᵢwᵢ + b: `from` gives the place of each xᵢ; of a matrix without biases, b is undefined, and not in
// the formula.
function ofProduct(context, formula, product, from, weights, bias) {
  const terms = Array.from(weights, (b, i) => termAt(context, from(i), b));
  const said = bias === undefined ? formula.replace(/ \+ b₁?₂?/, "") : formula;
  return result(said, terms, { added: bias, product });
}

// Σ xᵢyᵢ: `from` and `by` give the places of both, which have these names.
function ofPairs(context, formula, product, names, count, from, by) {
  return { ...result(formula, Array.from({ length: count }, (_, i) =>
    termAt(context, from(i), numberAt(context.traced, by(i)), by(i))), { product }), names };
}

function learned({ weights }, path) {
  return { weight: weights[`${path}.weight`], bias: weights[`${path}.bias`] };
}

function ofLogit(context) {
  const { model, cell: { row: t, column }, rows, columns } = context;
  const { width } = model.config;
  const bias = model.weights["output_bias"];
  const [key, read] = model.config.stack === "encoder" ? ["normed_nm", "head"] : ["decoder.output_tm", "decoder"];
  const from = (i) => ({ key, head: null, row: t, column: i });
  const product = [matrix("E", columns, width, { row: column }), "transposed: Eᵀ;",
    matrix("h", rows, width, { row: t }), "·", matrix("Eᵀ", width, columns, { column }),
    ...(bias ? ["+", matrix("b", 1, columns, { column })] : []), "=", made(context, "logits")];
  return ofProduct(context, `Σ hᵢ · Eᵢ + b: the ${read}'s output row times the piece's row of the output ` +
    "matrix", product, from, row(outputEmbedding(model), column), bias?.data[column]);
}

function ofSoftmax(context, key) {
  const { traced, cell } = context;
  const terms = Array.from({ length: tensorAt(traced, key).shape.at(-1) }, (_, column) =>
    ({ ...termAt(context, { ...cell, key, column }), isAsked: column === cell.column }));
  const normaliser = logSumExp(terms.map(({ a }) => a));
  terms.forEach((term) => { term.value = Math.exp(term.a - normaliser); });
  const what = key === "logits_tv" ? "logit" : "score";
  return result(`exp(${what}) / Σ exp(${what}s of the row): the softmax`, terms, {
    value: terms[cell.column].value,
    note: "The last column is the share of each number; the shares add up to 1.",
  });
}

function ofStack(context) {
  const { model, base, traced, cell } = context;
  const last = traced[base].layers.length - 1;
  const key = `${base}.layers.${last}.feed_forward_residual.output_tm`;
  return model.config.norm === "pre" ? ofNorm(context, { ...cell, key }, `${base}.last_norm`) : same(context, key);
}

function ofEmbedding(context) {
  const { model, traced, cell, switches, path, name, base } = context;
  const { width, positions } = model.config;
  const { ids, positions: places, segments, embedding } = traced[path[0]];
  const { row: t, column } = cell;
  const place = places?.[t] ?? t;
  if (name === "scaled_tm" || name === "tokens_tm") {
    const matrix = path[0] === "encoder" ? sourceEmbedding(model)
      : model.weights["target_embedding.weight"];
    const scale = name === "scaled_tm" || positions === "sinusoidal" ? width : null;
    return ofRow("E", matrix, ids[t], column, scale);
  }
  if (name === "segments_tm") {
    return ofRow("S", model.weights["segments.weight"], segments[t], column);
  }
  if (name === "positions_tm") {
    if (positions === "learned") {
      return ofRow("P", model.weights["positions.weight"], place, column);
    }
    const wave = column % 2 ? "cos" : "sin";
    const angle = Math.fround(place * model.weights["positions.angles"].data[column >> 1]);
    const value = Math[wave](angle);
    return result(`${wave}(${place} / 10000^(${column - (column % 2)}/${width})) = ${wave}(${angle})`,
      [], { value, note: "This number is not learned." });
  }
  if (name === "normed_tm") {
    return ofNorm(context, { ...cell, key: `${base}.sum_tm` }, `${path[0]}.embedding_norm`);
  }
  const isAdded = (one) => one !== "positions_tm" || (switches.positions && positions !== "rotary");
  const summands = ["scaled_tm", "tokens_tm", "positions_tm", "segments_tm"]
    .filter((one) => embedding[one] && isAdded(one)).map((one) => `${base}.${one}`);
  return summands.length > 1 ? ofSum(context, summands.map(nameOf).join(" + "), summands)
    : same(context, summands[0]);
}

// The number of a row that is picked from a learned matrix.
function ofRow(letter, matrix, n, column, width = null) {
  const [kind, owner] = PICKED[letter];
  const [a, b] = [row(matrix, n)[column], width && Math.sqrt(width)];
  return result(`${letter}[${n}, ${column}]${width ? ` · √${width}` : ""}: a learned number of the ${kind} matrix`,
    [{ place: null, a, b, factor: null, value: width ? a * b : a }],
    { note: `Row ${n} of the matrix belongs to this ${owner}. It is learned, not computed.` });
}

// The place that holds what goes into a sub-layer's residual connection.
function keyOfInput({ traced, path: [stack, , n, part] }) {
  const { embedding, layers } = traced[stack];
  if (part.startsWith("self")) {
    return Number(n) ? `${stack}.layers.${n - 1}.feed_forward_residual.output_tm`
      : `${stack}.embedding.${embedding.normed_tm ? "normed_tm" : "sum_tm"}`;
  }
  const before = part.startsWith("cross") || !layers[n].cross_attention ? "self" : "cross";
  return `${stack}.layers.${n}.${before}_attention_residual.output_tm`;
}

// The place that a sub-layer reads.
function keyRead({ config }, base) {
  return `${base}_residual.${config.norm === "pre" ? "normed_tm" : "input_tm"}`;
}

function ofResidual(context) {
  const { model, cell, switches, path, name, base } = context;
  const pre = model.config.norm === "pre";
  const sublayer = base.replace("_residual", "");
  if (name === "input_tm") return same(context, keyOfInput(context));
  if (name === "output_tm") return same(context, `${base}.${pre ? "sum_tm" : "normed_tm"}`);
  if (name === "sum_tm") {
    const off = switches.residualsOff.has(sublayer.replace(".layers", ""));
    return ofSum(context, off ? "output only: the residual connection is switched off" : "input + output",
      [...(off ? [] : [`${base}.input_tm`]), `${sublayer}.output_tm`]);
  }
  return ofNorm(context, { ...cell, key: `${base}.${pre ? "input_tm" : "sum_tm"}` }, `${sublayer}_norm`);
}

function ofNorm({ model, traced }, place, path) {
  const { weight, bias } = learned(model, path);
  const numbers = row(tensorAt(traced, place.key), place.row);
  const { mean, deviation } = moments(numbers, model.config);
  const a = numbers[place.column];
  const gain = weight.data[place.column];
  const [root, over, shown] = model.config.norm_kind === "rms" ? ["√(mean of x² + ε)", "x", ""]
    : ["√(variance + ε)", "(x − mean)", `mean ${formatPrecise(mean)}, `];
  return result(
    `${over} / ${root} · g${bias ? " + b" : ""}, with ${shown}${root} ${formatPrecise(deviation)}, ` +
      `g ${formatPrecise(gain)}`,
    [{ place, a, b: null, factor: null, value: ((a - mean) / deviation) * gain }],
    { added: bias?.data[place.column], note: "The root is computed over the whole row; g" +
      `${bias ? " and b are" : " is"} learned.` });
}

// A row at `key` times a column of the learned matrix at `path`; `names` are those of both and the result.
function ofColumn(context, path, key, formula, names, output = context.cell.column) {
  const { weight, bias } = learned(context.model, path);
  const from = (column) => ({ key, head: null, row: context.cell.row, column });
  const parts = affine(context, names[0], weight.shape[1], names[1], names[2], bias);
  return ofProduct(context, formula, parts, from, row(weight, output), bias?.data[output]);
}

// The same through the activation.
function ofActivated(context, path, key, names) {
  const { activation } = context.model.config;
  const found = ofColumn(context, path, key, `${ACTIVATION_FORMULAS[activation]}, z = Σ xᵢ · ${names[1]}ᵢ + b₁: ` +
    `a column of ${names[1]}, then the activation`, names);
  return { ...found, product: [...found.product, "then the activation"],
    value: ACTIVATIONS[activation](found.value) };
}

// The numbers of a masked model between the encoder and the output matrix.
function ofMaskedHead(context) {
  const { cell, name, traced: { places } } = context;
  if (name === "normed_nm") return ofNorm(context, { ...cell, key: "inner_nm" }, "head.norm");
  if (name === "inner_nm") return ofActivated(context, "head.dense", "states_nm", ["state", "W", "sum"]);
  return same({ ...context, cell: { ...cell, row: places[cell.row] } }, "encoder.output_tm");
}

function ofFeedForward(context) {
  const { model, cell, name, base } = context;
  const { activation } = model.config;
  if (name === "output_tm") {
    return ofColumn(context, `${base}.outer`, `${base}.inner_tf`, "Σ innerᵢ · W₂ᵢ + b₂", ["inner", "W₂", "output"]);
  }
  if (activation !== "swiglu") {
    return ofActivated(context, `${base}.inner`, keyRead(model, base), ["input", "W₁", "sum"]);
  }
  const inner = (output) =>
    ofColumn(context, `${base}.gate_and_inner`, keyRead(model, base), "", ["input", "V", "sum"], output);
  const z = Math.fround(inner(cell.column).value);
  const found = inner(tensorAt(context.traced, cell.key).shape[1] + cell.column);
  const share = Math.fround(ACTIVATIONS.silu(z));
  return { ...found, product: [...found.product, "then times the gate"],
    value: share * Math.fround(found.value),
    formula: `silu(z) · (Σ xᵢ · Vᵢ${found.added === null ? "" : " + b"}), with z ${formatPrecise(z)}, ` +
      `silu(z) ${formatPrecise(share)} (SwiGLU)`,
    note: "The gate z is the same row times a column of another matrix, W." };
}

function ofAttention(context) {
  const { model, traced, cell, switches, path, name, base, rows, columns } = context;
  const { width, heads } = model.config;
  const d = width / heads;
  const { head, row: t, column } = cell;
  const one = ` of head ${head + 1}`;
  if (name === "weights_hts") return ofSoftmax(context, `${base}.scores_hts`);
  if (name === "scores_hts") {
    const product = [matrix(`K${one}`, columns, d, { row: column }), "transposed: Kᵀ;",
      matrix(`Q${one}`, rows, d, { row: t }), "·", matrix("Kᵀ", d, columns, { column }),
      switches.scaledScores ? `/ √${d} =` : "=", made(context, "scores")];
    if (numberAt(traced, cell) === -Infinity) {
      const note = "exp(−∞) is 0, so the weight is 0: a row sees only itself and earlier rows.";
      return result("−∞: the mask hides this position", [], { value: -Infinity, note, product });
    }
    const scale = switches.scaledScores ? 1 / Math.sqrt(d) : 1;
    const divided = switches.scaledScores ? ` / √${d}` : ", not divided by √d";
    const found = ofPairs(context, `Σ queryᵢ · keyᵢ${divided}`, product, ["query", "key"], d,
      (i) => ({ key: `${base}.queries_htd`, head, row: t, column: i }),
      (i) => ({ key: `${base}.keys_hsd`, head, row: column, column: i }));
    return { ...found, value: found.value * scale, divisor: switches.scaledScores ? d : null };
  }
  if (name === "mix_htd") {
    if (switches.headsOff.has(`${base.replace(".layers", "")}.${head}`)) {
      return result("0: this head is switched off", [], { value: 0 });
    }
    const looked = tensorAt(traced, `${base}.values_hsd`).shape[1];
    const product = [matrix(`weights${one}`, rows, looked, { row: t }), "·",
      matrix(`V${one}`, looked, columns, { column }), "=", made(context, "mix")];
    return ofPairs(context, "Σ weightₛ · valueₛ, the sum over all pieces that the row looks at",
      product, ["weight", "value"], looked,
      (s) => ({ key: `${base}.weights_hts`, head, row: t, column: s }),
      (s) => ({ key: `${base}.values_hsd`, head, row: s, column }));
  }
  if (name === "output_tm") {
    const { weight, bias } = learned(model, `${base}.output`);
    const from = (i) => ({ key: `${base}.mix_htd`, head: Math.floor(i / d), row: t, column: i % d });
    return ofProduct(context, "Σ mixᵢ · Wᴼᵢ + b: the joined mixes of all heads times a column of Wᴼ",
      affine(context, `mixes of ${heads} heads`, width, "Wᴼ", "output", bias), from, row(weight, column),
      bias?.data[column]);
  }
  return ofHead(context, path[3] === "cross_attention", d);
}

// A query, key or value: a row of the input times a column of its matrix. Those of query heads come
// first, then those of keys and values, each of which several heads may share.
function ofHead(context, cross, d) {
  const { model, cell: { head, row: t, column }, switches, name, base } = context;
  const { width, heads, groups, positions } = model.config;
  const part = ["queries_htd", "keys_hsd", "values_hsd"].indexOf(name);
  const [own, before] = cross ? [part ? "key_value" : "query", 0] : ["query_key_value", heads];
  const { weight, bias } = learned(model, `${base}.${own}`);
  const group = Math.floor((head * groups) / heads);
  const first = [head, before, before + groups][part] + (part ? group : 0);
  const memory = cross && part > 0;
  const key = memory ? "encoder.output_tm" : keyRead(model, base);
  const from = (i) => ({ key, head: null, row: t, column: i });
  const letter = "QKV"[part];
  const read = memory ? "memory" : "input";
  const shared = part && groups < heads ? `group ${group + 1}` : `head ${head + 1}`;
  const drawn = affine(context, read, width, `W${letter} of ${shared}`, `${letter} of head ${head + 1}`, bias);
  const product = (at) => ofProduct(context, `Σ xᵢ · W${letter}ᵢ + b: a row of the ${read} times a column ` +
    `of W${letter}`, drawn, from, row(weight, first * d + at), bias?.data[first * d + at]);
  if (positions !== "rotary" || !switches.positions || cross || part === 2) return product(column);
  // Two columns are rotated by the angle of the row's position.
  const other = (column + d / 2) % d;
  const [sine, cosine] = anglesOf(model, t)[column % (d / 2)];
  const turned = (a, b) => a * cosine + (column < other ? -b : b) * sine;
  const [one, two] = [product(column), product(other)];
  const terms = one.terms.map((term, i) => {
    const b = turned(term.b, two.terms[i].b);
    return { ...term, b, value: term.a * b };
  });
  return { ...one, terms, added: one.added === null ? null : turned(one.added, two.added),
    product: [...drawn, "then rotated by the row's position"],
    value: turned(Math.fround(one.value), Math.fround(two.value)),
    note: `Rotated by position ${t}: column ${column} times ${formatPrecise(cosine)} ` +
      `${column < other ? "less" : "plus"} column ${other} times ${formatPrecise(sine)}.` };
}
