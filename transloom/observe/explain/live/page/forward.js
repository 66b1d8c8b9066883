// The forward pass (Vaswani et al. 2017, §3), as the networks of model/networks compute it, with all that they
// compute on the way. The tensors have the names that model/inspection gives them.
//
//   encodeSlices(model, ids) ─▶ EncoderTrace     decodeSlices(model, ids, memories) ─▶ DecoderTrace
//   readSlices(model, ids) ─▶ StackTrace: a language model's or a masked model's
//
// All can pause after each sub-layer: see slices.js.
//
// Shape suffixes: h heads, t queries, s keys, d width of a head, m width of the model, f inner
// width, v pieces. There is one sentence at a time: no axis for a batch, and no padding.
//
// Switches change parts of the trained model; NOTHING_SWITCHED changes none. Parts are named by their
// place: "encoder.0.self_attention", "decoder.1.feed_forward".

import {
  ACTIVATIONS, below, dot, gate, join, linear, normalise, plus, row, softmax, split, tensor,
} from "./tensors.js";

export const NOTHING_SWITCHED = Object.freeze({
  headsOff: new Set(), // "encoder.0.self_attention.2": the mix of that head is zero
  residualsOff: new Set(), // "encoder.0.self_attention": its residual connection is left out
  positions: true, // whether positions are added
  scaledScores: true, // whether scores are divided by √d
  mask: true, // whether a row of the decoder attends only to itself and earlier rows
  drop: null, // dropout, as in training: (place, tensor) ─▶ tensor; see training.js
});

const ROWS_OF_LOGITS = 8; // of a slice

// {ids, embedding, layers, output_tm}
export function* encodeSlices(model, ids, switches = NOTHING_SWITCHED) {
  const embedding = embed(model, ids, sourceEmbedding(model), 0, switches);
  const stack = yield* layersSlices({ model, switches, stack: "encoder" }, embedding.sum_tm);
  return { ids, embedding, ...stack };
}

// Keys and values of the memory for each decoder layer, [{keys_hsd, values_hsd}].
export function projectMemory(model, memory) {
  const { groups } = model.config;
  return Array.from({ length: model.config.decoder_layers }, (_, n) => {
    const at = { model, name: `decoder.${n}` };
    const [keys_hsd, values_hsd] = headsOf(at, "cross_attention.key_value", memory, [groups, groups]);
    return { keys_hsd, values_hsd };
  });
}

// {ids, embedding, layers, output_tm}. With `past`, the layers' self-attentions of the pieces
// before, only the rows of the new pieces are computed.
export function* decodeSlices(model, ids, memories, switches = NOTHING_SWITCHED, past = null) {
  const embedding = embed(model, ids, model.weights["target_embedding.weight"], lengthOfPast(past), switches);
  const stack = yield* layersSlices(
    { model, switches, stack: "decoder", causal: true, memories, past }, embedding.sum_tm);
  return { ids, embedding, ...stack };
}

// The same for a model with one stack. Of a masked model's text, `positions` and `segments` are those
// of its pieces; in a language model, the pieces follow those of `past`.
export function* readSlices(model, ids, { positions = null, segments = null, past = null } = {}) {
  const { weights, config: { stack, width, positions: kind } } = model;
  const places = positions ?? ids.map((_, t) => lengthOfPast(past) + t);
  const scale = kind === "sinusoidal" ? Math.sqrt(width) : 1;
  const tokens_tm = pickedRows(weights["target_embedding.weight"], ids, scale);
  const positions_tm = { rotary: () => null, sinusoidal: () => wavesOf(model, places),
    learned: () => pickedRows(weights["positions.weight"], places) }[kind]();
  const table = weights["segments.weight"];
  const segments_tm = table ? pickedRows(table, segments) : null;
  const sum_tm = [positions_tm, segments_tm].filter(Boolean).reduce(plus, tokens_tm);
  const norm = `${stack}.embedding_norm`;
  const normed_tm = weights[`${norm}.weight`] ? normalised(model, norm, sum_tm) : null;
  const found = yield* layersSlices(
    { model, switches: NOTHING_SWITCHED, stack, causal: stack === "decoder", past }, normed_tm ?? sum_tm);
  const embedding = { tokens_tm, positions_tm, segments_tm, sum_tm, normed_tm };
  return { ids, positions: places, segments, embedding, ...found };
}

// {layers, output_tm}: a stack's layers, each with cross-attention if there are `memories`. Under
// `causal`, a row sees itself and earlier ones.
function* layersSlices({ model, switches, stack, causal = false, memories = null, past = null }, input_tm) {
  const start = lengthOfPast(past);
  const { heads, groups, positions } = model.config;
  const turns = positions === "rotary" && switches.positions;
  const layers = [];
  let x = dropped(switches, `${stack}.embedding`, input_tm);
  for (let n = 0; n < model.config[`${stack}_layers`]; n++) {
    const at = { model, switches, name: `${stack}.${n}` };
    const layer = {};
    x = sublayer(at, layer, "self_attention", x, (y) => {
      const [queries, keys, values] =
        headsOf(at, "self_attention.query_key_value", y, [heads, groups, groups]);
      if (turns) [queries, keys].forEach((turned) => turn(model, turned, start));
      const all = [queries, below(past?.[n].keys_hsd, keys), below(past?.[n].values_hsd, values)];
      return attention(at, "self_attention", all, causal && switches.mask ? start : null);
    });
    yield;
    if (memories) {
      x = sublayer(at, layer, "cross_attention", x, (y) => {
        const [queries] = headsOf(at, "cross_attention.query", y, [heads]);
        const { keys_hsd, values_hsd } = memories[n];
        return attention(at, "cross_attention", [queries, keys_hsd, values_hsd], null);
      });
      yield;
    }
    x = sublayer(at, layer, "feed_forward", x, (y) => feedForward(at, y));
    yield;
    layers.push(layer);
  }
  return { layers, output_tm: lastNorm(model, stack, x) };
}

// The output of a masked model's head for hidden states: one row for each hidden piece.
export function* headSlices(model, states_nm) {
  const dense = linear(states_nm, model.weights["head.dense.weight"], model.weights["head.dense.bias"]);
  const inner_nm = tensor(dense.shape, dense.data.map(ACTIVATIONS[model.config.activation]));
  const normed_nm = normalised(model, "head.norm", inner_nm);
  const logits_tv = yield* logitsSlices(model, normed_nm);
  return { states_nm, inner_nm, normed_nm, logits_tv, probabilities_tv: softmax(logits_tv) };
}

// Hidden states (t, m) ─▶ logits (t, v).
export function* logitsSlices(model, hidden) {
  const [count, width] = hidden.shape;
  const [matrix, bias] = [outputEmbedding(model), model.weights["output_bias"] ?? null];
  const pieces = matrix.shape[0];
  const logits_tv = tensor([count, pieces]);
  for (let first = 0; first < count; first += ROWS_OF_LOGITS) {
    const end = Math.min(first + ROWS_OF_LOGITS, count);
    const rows = tensor([end - first, width], hidden.data.subarray(first * width, end * width));
    logits_tv.data.set(linear(rows, matrix, bias).data, first * pieces);
    yield;
  }
  return logits_tv;
}

// One pass over a source and what the decoder reads, as `trace` of model/inspection/trace.py.
export function* traceSlices(model, source, targetInput, switches = NOTHING_SWITCHED) {
  const encoder = yield* encodeSlices(model, source, switches);
  const memories = projectMemory(model, encoder.output_tm);
  yield;
  const decoder = yield* decodeSlices(model, targetInput, memories, switches);
  const logits_tv = yield* logitsSlices(model, decoder.output_tm);
  return { encoder, decoder, logits_tv, probabilities_tv: softmax(logits_tv) };
}

function dropped({ drop }, place, x) {
  return drop ? drop(place, x) : x;
}

export function sourceEmbedding(model) {
  return model.weights["source_embedding.weight"] ?? model.weights["target_embedding.weight"];
}

export function outputEmbedding(model) {
  return model.weights["output_embedding.weight"] ?? model.weights["target_embedding.weight"];
}

function embed(model, ids, matrix, start, switches) {
  const scaled_tm = pickedRows(matrix, ids, Math.sqrt(model.config.width));
  const turns = model.config.positions === "rotary";
  const positions_tm = turns ? tensor(scaled_tm.shape) : wavesOf(model, ids.map((_, t) => start + t));
  const sum_tm = switches.positions ? plus(scaled_tm, positions_tm) : scaled_tm;
  return { scaled_tm, positions_tm, sum_tm };
}

function pickedRows(matrix, numbers, scale = 1) {
  const y = tensor([numbers.length, matrix.shape[1]]);
  numbers.forEach((number, t) => row(y, t).set(row(matrix, number).map((value) => value * scale)));
  return y;
}

// Of some positions: sines in even columns, cosines in odd ones (§3.5).
function wavesOf(model, places) {
  const y = tensor([places.length, model.config.width]);
  places.forEach((place, t) => anglesOf(model, place).forEach(([sine, cosine], i) =>
    row(y, t).set([sine, cosine], 2 * i)));
  return y;
}

// Rotates queries or keys in place, in pairs of numbers i and i + d/2 (Su et al. 2021).
function turn(model, { shape: [heads, length, d], data }, start) {
  for (let t = 0; t < length; t++) {
    const angles = anglesOf(model, start + t);
    for (let h = 0; h < heads; h++) {
      const first = (h * length + t) * d;
      angles.forEach(([sine, cosine], i) => {
        const [a, b] = [data[first + i], data[first + i + d / 2]];
        data[first + i] = a * cosine - b * sine;
        data[first + i + d / 2] = b * cosine + a * sine;
      });
    }
  }
}

// Sine and cosine of each angle of a position.
export function anglesOf(model, place) {
  return Array.from(model.weights["positions.angles"].data, (ofFirst) => { // of position 1
    const angle = Math.fround(place * ofFirst);
    return [Math.sin(angle), Math.cos(angle)];
  });
}

function lengthOfPast(past) {
  return past ? past[0].keys_hsd.shape[1] : 0;
}

// Weight and bias of a linear layer or a norm of the layer `at`.
function parameters(at, module) {
  const path = pathOf(at, module);
  return { weight: at.model.weights[`${path}.weight`], bias: at.model.weights[`${path}.bias`] };
}

function pathOf({ name }, module) {
  const [stack, n] = name.split(".");
  return `${stack}.layers.${n}.${module}`;
}

// Projects rows to heads: for each count (h, t, d), where heads of keys and values that several heads
// of queries share are repeated for each.
function headsOf(at, module, x, counts) {
  const { heads, width } = at.model.config;
  const { weight, bias } = parameters(at, module);
  const projected = linear(x, weight, bias);
  let first = 0;
  return counts.map((count) => {
    const found = split(projected, first, heads, width / heads, heads / count);
    first += (count * width) / heads;
    return found;
  });
}

// Runs a sub-layer with its residual connection, stores both in `layer`, and returns the sum.
// post: norm(x + sublayer(x)); pre: x + sublayer(norm(x)).
function sublayer(at, layer, name, input_tm, compute) {
  const norm = pathOf(at, `${name}_norm`);
  const pre = at.model.config.norm === "pre";
  const normed = pre ? normalised(at.model, norm, input_tm) : null;
  const computed = compute(normed ?? input_tm);
  const around = !at.switches.residualsOff.has(`${at.name}.${name}`);
  const output = dropped(at.switches, `${at.name}.${name}`, computed.output_tm);
  const sum_tm = around ? plus(input_tm, output) : output;
  const normed_tm = normed ?? normalised(at.model, norm, sum_tm);
  const output_tm = pre ? sum_tm : normed_tm;
  layer[name] = computed;
  layer[name + "_residual"] = { input_tm, sum_tm, normed_tm, output_tm };
  return output_tm;
}

// softmax(QKᵀ / √d) V, the heads joined, and W^O (§3.2). `causal`: null lets all queries see all
// keys; else query t sees keys 0 … causal + t.
function attention(at, name, [queries_htd, keys_hsd, values_hsd], causal) {
  const [heads, length, d] = queries_htd.shape;
  const keys = keys_hsd.shape[1];
  const scale = at.switches.scaledScores ? 1 / Math.sqrt(d) : 1;
  const scores_hts = tensor([heads, length, keys]);
  const mix_htd = tensor(queries_htd.shape);
  const vector = ({ data }, n) => data.subarray(n * d, (n + 1) * d);
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < length; t++) {
      for (let s = 0; s < keys; s++) {
        const seen = causal === null || s <= causal + t;
        scores_hts.data[(h * length + t) * keys + s] = seen
          ? dot(vector(queries_htd, h * length + t), vector(keys_hsd, h * keys + s)) * scale
          : -Infinity;
      }
    }
  }
  const weights_hts = softmax(scores_hts);
  const taken_hts = dropped(at.switches, `${at.name}.${name}.weights`, weights_hts);
  for (let h = 0; h < heads; h++) {
    if (at.switches.headsOff.has(`${at.name}.${name}.${h}`)) continue;
    for (let t = 0; t < length; t++) {
      const sums = new Float64Array(d);
      for (let s = 0; s < keys; s++) {
        const weight = taken_hts.data[(h * length + t) * keys + s];
        vector(values_hsd, h * keys + s).forEach((value, i) => { sums[i] += weight * value; });
      }
      vector(mix_htd, h * length + t).set(sums);
    }
  }
  const { weight, bias } = parameters(at, name + ".output");
  const output_tm = linear(join(mix_htd), weight, bias);
  return { queries_htd, keys_hsd, values_hsd, scores_hts, weights_hts, mix_htd, output_tm };
}

// f(xW₁ + b₁)W₂ + b₂; the paper's f is max(0, x) (§3.3). SwiGLU is (silu(xW) ⊙ xV)W₂.
function feedForward(at, x) {
  const { activation } = at.model.config;
  const outer = parameters(at, "feed_forward.outer");
  const gated = activation === "swiglu";
  const inner = parameters(at, `feed_forward.${gated ? "gate_and_inner" : "inner"}`);
  const wide = linear(x, inner.weight, inner.bias);
  const inner_tf = gated ? gate(wide) : tensor(wide.shape, wide.data.map(ACTIVATIONS[activation]));
  return { inner_tf, output_tm: linear(inner_tf, outer.weight, outer.bias) };
}

// Pre-norm stacks end with a norm.
export function lastNorm(model, stack, x) {
  return model.config.norm === "pre" ? normalised(model, `${stack}.last_norm`, x) : x;
}

function normalised({ config, weights }, path, x) {
  return normalise(x, weights[`${path}.weight`], weights[`${path}.bias`], config);
}
