// Where a number comes from: the formula, and each number that went into it with its own place, so
// that one can go back from number to number until the embedding.
//
//   originOf(model, traced, cell, switches) ─▶ {formula, terms, added, value, note}
//
// `value` is worked out anew from the terms; a test holds it to the tensor's own number. A term is
// {place, a, b, value}: its number a, what it is multiplied by (b, or null) and what it gives.
// Terms add up; `added` is the bias, or null; what happens to the sum then, the formula says.

import { formatPrecise } from "../../../drawing/numbers.js";
import { NOTHING_SWITCHED, outputEmbedding, parameters, sourceEmbedding } from "./forward.js";
import { numberAt, tensorAt } from "./places.js";
import { ACTIVATIONS, logSumExp, moments, row } from "./tensors.js";

const ACTIVATION_FORMULAS = {
  relu: "max(0, z) (ReLU)",
  gelu: "z · Φ(z), Φ the share of a normal distribution below z (GELU)",
  silu: "z / (1 + exp(−z)) (SiLU)",
};

export function originOf(model, traced, cell, switches = NOTHING_SWITCHED) {
  const path = cell.key.split(".");
  const name = path.at(-1);
  const context = { model, traced, cell, switches, path, name };
  if (cell.key === "logits_tv") return ofLogit(context);
  if (cell.key === "probabilities_tv") return ofSoftmax(context, "logits_tv");
  if (cell.key === "encoder.output_tm" || cell.key === "decoder.output_tm") return ofStack(context);
  if (path[1] === "embedding") return ofEmbedding(context);
  if (path[3].endsWith("_residual")) return ofResidual(context);
  return path[3] === "feed_forward" ? ofFeedForward(context) : ofAttention(context);
}

function result(formula, terms, { added = null, value, note = "" } = {}) {
  const sum = terms.reduce((total, term) => total + term.value, added ?? 0);
  return { formula, terms, added, value: value ?? sum, note };
}

function same(context, key, note) {
  const place = { key, head: null, row: context.cell.row, column: context.cell.column };
  const a = numberAt(context.traced, place);
  return result("the same number in another matrix", [{ place, a, b: null, value: a }], { note });
}

// Σ xᵢwᵢ + b: `from` gives the place of each xᵢ.
function ofProduct({ traced }, formula, from, weights, bias) {
  const terms = Array.from(weights, (b, i) => {
    const place = from(i);
    const a = numberAt(traced, place);
    return { place, a, b, value: a * b };
  });
  return result(formula, terms, { added: bias });
}

function ofLogit({ model, ...context }) {
  const { row: t, column } = context.cell;
  const [matrix, bias] = [outputEmbedding(model), model.weights["output_bias"]];
  const from = (i) => ({ key: "decoder.output_tm", head: null, row: t, column: i });
  return ofProduct(context, `Σ hᵢ · Eᵢ${bias ? " + b" : ""}: the decoder's output row times the ` +
    "piece's row of the output matrix", from, row(matrix, column), bias?.data[column] ?? null);
}

function ofSoftmax({ traced, cell, switches }, key) {
  const { shape } = tensorAt(traced, key);
  const places = Array.from({ length: shape.at(-1) }, (_, column) => ({ ...cell, key, column }));
  const numbers = places.map((place) => numberAt(traced, place));
  const normaliser = logSumExp(numbers);
  const shares = numbers.map((number) => Math.exp(number - normaliser));
  const terms = places.map((place, n) => ({ place, a: numbers[n], b: null, value: shares[n] }));
  const what = key === "logits_tv" ? "logit" : "score";
  return result(`exp(${what}) / Σ exp(${what}s of the row): the softmax`, terms, {
    value: shares[cell.column],
    note: "The last column is the share of each number; the shares add up to 1.",
  });
}

function ofStack(context) {
  const { model, path, traced, cell } = context;
  const last = traced[path[0]].layers.length - 1;
  const key = `${path[0]}.layers.${last}.feed_forward_residual.output_tm`;
  if (model.config.norm !== "pre") return same(context, key, "The output of the last layer.");
  const { weight, bias } = {
    weight: model.weights[`${path[0]}.last_norm.weight`],
    bias: model.weights[`${path[0]}.last_norm.bias`],
  };
  return ofNorm(context, { ...cell, key }, weight, bias);
}

function ofEmbedding({ model, traced, cell, switches, path, name }) {
  const { row: t, column } = cell;
  const { width } = model.config;
  const at = (tensorName) => ({ ...cell, key: `${path[0]}.embedding.${tensorName}` });
  if (name === "scaled_tm") {
    const matrix = path[0] === "encoder" ? sourceEmbedding(model)
      : model.weights["target_embedding.weight"];
    const id = traced[path[0]].ids[t];
    const a = row(matrix, id)[column];
    return result(`E[${id}, ${column}] · √${width}: a learned number of the embedding matrix`,
      [{ place: null, a, b: Math.sqrt(width), value: a * Math.sqrt(width) }],
      { note: `Row ${id} of the matrix belongs to this piece. It is learned, not computed.` });
  }
  if (name === "positions_tm") {
    const wave = column % 2 ? "cos" : "sin";
    const angle = Math.fround(t * model.weights["positions.angles"].data[column >> 1]);
    const value = Math[wave](angle);
    return result(`${wave}(${t} / 10000^(${column - (column % 2)}/${width})) = ${wave}(${angle})`,
      [], { value, note: "This number is not learned." });
  }
  const names = switches.positions ? ["scaled_tm", "positions_tm"] : ["scaled_tm"];
  return result("embedding × √width + positions", names.map((tensorName) => {
    const place = at(tensorName);
    const a = numberAt(traced, place);
    return { place, a, b: null, value: a };
  }));
}

// The place that holds what goes into a sub-layer's residual connection.
function keyOfInput({ config }, [stack, , n, part]) {
  const layer = `${stack}.layers.${n}`;
  const before = {
    self_attention: Number(n) ? `${stack}.layers.${n - 1}.feed_forward_residual.output_tm`
      : `${stack}.embedding.sum_tm`,
    cross_attention: `${layer}.self_attention_residual.output_tm`,
    feed_forward: `${layer}.${stack === "encoder" ? "self" : "cross"}_attention_residual.output_tm`,
  };
  return before[part.replace("_residual", "")];
}

// The place that a sub-layer reads.
function keyRead({ config }, path) {
  const around = path.slice(0, 3).join(".") + `.${path[3].replace("_residual", "")}_residual`;
  return `${around}.${config.norm === "pre" ? "normed_tm" : "input_tm"}`;
}

function ofResidual(context) {
  const { model, traced, cell, switches, path, name } = context;
  const pre = model.config.norm === "pre";
  const around = path.slice(0, 4).join(".");
  const sublayer = around.replace("_residual", "");
  if (name === "input_tm") return same(context, keyOfInput(model, path), "");
  if (name === "output_tm") return same(context, `${around}.${pre ? "sum_tm" : "normed_tm"}`, "");
  if (name === "sum_tm") {
    const off = switches.residualsOff.has(sublayer.replace(".layers", ""));
    const keys = [...(off ? [] : [`${around}.input_tm`]), `${sublayer}.output_tm`];
    return result(off ? "output only: the residual connection is switched off" : "input + output",
      keys.map((key) => {
        const a = numberAt(traced, { ...cell, key });
        return { place: { ...cell, key }, a, b: null, value: a };
      }));
  }
  const at = { model, name: `${path[0]}.${path[2]}` };
  const { weight, bias } = parameters(at, sublayer.split(".").at(-1) + "_norm");
  return ofNorm(context, { ...cell, key: `${around}.${pre ? "input_tm" : "sum_tm"}` }, weight, bias);
}

function ofNorm({ model, traced }, place, weight, bias) {
  const numbers = row(tensorAt(traced, place.key), place.row);
  const { mean, deviation } = moments(numbers, model.config);
  const a = numbers[place.column];
  const [gain, shift] = [weight.data[place.column], bias.data[place.column]];
  const value = ((a - mean) / deviation) * gain + shift;
  return result(
    `(x − mean) / √(variance + ε) · g + b, with mean ${formatPrecise(mean)}, √(variance + ε) ` +
      `${formatPrecise(deviation)}, g ${formatPrecise(gain)}`,
    [{ place, a, b: null, value: value - shift }],
    { added: shift, note: "Mean and variance are computed over the whole row; g and b are learned." });
}

function ofFeedForward(context) {
  const { model, cell, path, name } = context;
  const at = { model, name: `${path[0]}.${path[2]}` };
  const inner = name === "inner_tf";
  const { weight, bias } = parameters(at, `feed_forward.${inner ? "inner" : "outer"}`);
  const key = inner ? keyRead(model, path) : cell.key.replace("output_tm", "inner_tf");
  const from = (column) => ({ key, head: null, row: cell.row, column });
  const { activation } = model.config;
  const formula = inner ? `${ACTIVATION_FORMULAS[activation]}, z = Σ xᵢ · W₁ᵢ + b₁: ` +
    "a column of W₁ and its bias, then the activation" : "Σ innerᵢ · W₂ᵢ + b₂";
  const found = ofProduct(context, formula, from, row(weight, cell.column), bias.data[cell.column]);
  return inner ? { ...found, value: ACTIVATIONS[activation](found.value) } : found;
}

function ofAttention(context) {
  const { model, traced, cell, switches, path, name } = context;
  const base = path.slice(0, 4).join(".");
  const at = { model, name: `${path[0]}.${path[2]}` };
  const d = model.config.width / model.config.heads;
  const { head, row: t, column } = cell;
  if (name === "weights_hts") return ofSoftmax(context, `${base}.scores_hts`);
  if (name === "scores_hts") {
    if (numberAt(traced, cell) === -Infinity) {
      const note = "exp(−∞) is 0, so the weight is 0: a row sees only itself and earlier rows.";
      return result("−∞: the mask hides this position", [], { value: -Infinity, note });
    }
    const scale = switches.scaledScores ? 1 / Math.sqrt(d) : 1;
    const keys = Array.from({ length: d }, (_, i) =>
      numberAt(traced, { key: `${base}.keys_hsd`, head, row: column, column: i }));
    const from = (i) => ({ key: `${base}.queries_htd`, head, row: t, column: i });
    const divided = switches.scaledScores ? ` / √${d}` : ", not divided by √d";
    const found = ofProduct(context, `Σ queryᵢ · keyᵢ${divided}`, from, keys, null);
    return { ...found, value: found.value * scale };
  }
  if (name === "mix_htd") {
    if (switches.headsOff.has(`${base.replace(".layers", "")}.${head}`)) {
      return result("0: this head is switched off", [], { value: 0 });
    }
    const length = tensorAt(traced, `${base}.values_hsd`).shape[1];
    const values = Array.from({ length }, (_, s) =>
      numberAt(traced, { key: `${base}.values_hsd`, head, row: s, column }));
    const from = (s) => ({ key: `${base}.weights_hts`, head, row: t, column: s });
    const formula = "Σ weightₛ · valueₛ, the sum over all pieces that the row looks at";
    return ofProduct(context, formula, from, values, null);
  }
  if (name === "output_tm") {
    const { weight, bias } = parameters(at, `${path[3]}.output`);
    const key = `${base}.mix_htd`;
    const from = (i) => ({ key, head: Math.floor(i / d), row: t, column: i % d });
    return ofProduct(context, "Σ mixᵢ · Wᴼᵢ + b: the joined mixes of all heads times a column of " +
      "Wᴼ", from, row(weight, column), bias.data[column]);
  }
  return ofHead(context, at, base, d);
}

// A query, key or value: a row of the input times a column of its matrix.
function ofHead(context, at, base, d) {
  const { model, cell, path, name } = context;
  const { width } = model.config;
  const cross = path[3] === "cross_attention";
  const part = ["queries_htd", "keys_hsd", "values_hsd"].indexOf(name);
  const own = cross ? (part ? "key_value" : "query") : "query_key_value";
  const { weight, bias } = parameters(at, `${path[3]}.${own}`);
  const first = (cross && part ? part - 1 : part) * width;
  const output = first + cell.head * d + cell.column;
  const key = cross && part ? "encoder.output_tm" : keyRead(model, path);
  const from = (column) => ({ key, head: null, row: cell.row, column });
  const letter = "QKV"[part];
  const reads = cross && part ? "a row of the memory" : "a row of the input";
  return ofProduct(context, `Σ xᵢ · W${letter}ᵢ + b: ${reads} times a column of W${letter}`, from,
    row(weight, output), bias.data[output]);
}
