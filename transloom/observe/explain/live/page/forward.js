// The forward pass (Vaswani et al. 2017, §3), as model/networks/transformer.py computes it, with all that it
// computes on the way. The tensors have the names that model/inspection/trace.py gives them.
//
//   encodeSlices(model, ids) ─▶ EncoderTrace     decodeSlices(model, ids, memories) ─▶ DecoderTrace
//
// Both can pause after each sub-layer: see slices.js.
//
// Shape suffixes: h heads, t queries, s keys, d width of a head, m width of the model, f inner
// width, v pieces. There is one sentence at a time: no axis for a batch, and no padding.
//
// Switches say what is to be otherwise than in the trained model; NOTHING_SWITCHED is the model as
// it is. Parts are named by their place: "encoder.0.self_attention", "decoder.1.feed_forward".

import { atOnce } from "./slices.js";
import {
  ACTIVATIONS, below, dot, join, layerNorm, linear, plus, row, softmax, split, tensor,
} from "./tensors.js";

export const NOTHING_SWITCHED = Object.freeze({
  headsOff: new Set(), // "encoder.0.self_attention.2": the mix of that head is zero
  residualsOff: new Set(), // "encoder.0.self_attention": what goes around it is left out
  positions: true, // whether positions are added
  scaledScores: true, // whether scores are divided by √d
  mask: true, // whether a row of the decoder sees itself and earlier rows alone
  drop: null, // dropout, as in training: (place, tensor) ─▶ tensor; see training.js
});

const ROWS_OF_LOGITS = 8; // of a slice

// {ids, embedding, layers, output_tm}
export function* encodeSlices(model, ids, switches = NOTHING_SWITCHED) {
  const embedding = embed(model, ids, sourceEmbedding(model), 0, switches);
  const layers = [];
  let x = dropped(switches, "encoder.embedding", embedding.sum_tm);
  for (let n = 0; n < model.config.encoder_layers; n++) {
    const at = { model, switches, name: `encoder.${n}` };
    const layer = {};
    x = sublayer(at, layer, "self_attention", x, (y) => {
      const { weight, bias } = parameters(at, "self_attention.query_key_value");
      return attention(at, "self_attention", headsOf(at, linear(y, weight, bias), 3), null);
    });
    yield;
    x = sublayer(at, layer, "feed_forward", x, (y) => feedForward(at, y));
    yield;
    layers.push(layer);
  }
  return { ids, embedding, layers, output_tm: lastNorm(model, "encoder", x) };
}

// Keys and values of the memory for each decoder layer, [{keys_hsd, values_hsd}].
export function projectMemory(model, memory) {
  return Array.from({ length: model.config.decoder_layers }, (_, n) => {
    const at = { model, name: `decoder.${n}` };
    const { weight, bias } = parameters(at, "cross_attention.key_value");
    const [keys_hsd, values_hsd] = headsOf(at, linear(memory, weight, bias), 2);
    return { keys_hsd, values_hsd };
  });
}

// {ids, embedding, layers, output_tm}. With `past`, the layers' self-attentions of the pieces
// before, only the rows of the new pieces are computed.
export function* decodeSlices(model, ids, memories, switches = NOTHING_SWITCHED, past = null) {
  const start = past ? past[0].keys_hsd.shape[1] : 0;
  const embedding = embed(model, ids, model.weights["target_embedding.weight"], start, switches);
  const layers = [];
  let x = dropped(switches, "decoder.embedding", embedding.sum_tm);
  for (let n = 0; n < model.config.decoder_layers; n++) {
    const at = { model, switches, name: `decoder.${n}` };
    const layer = {};
    x = sublayer(at, layer, "self_attention", x, (y) => {
      const { weight, bias } = parameters(at, "self_attention.query_key_value");
      const [queries, keys, values] = headsOf(at, linear(y, weight, bias), 3);
      const all = [queries, below(past?.[n].keys_hsd, keys), below(past?.[n].values_hsd, values)];
      return attention(at, "self_attention", all, switches.mask ? start : null);
    });
    yield;
    x = sublayer(at, layer, "cross_attention", x, (y) => {
      const { weight, bias } = parameters(at, "cross_attention.query");
      const [queries] = headsOf(at, linear(y, weight, bias), 1);
      const { keys_hsd, values_hsd } = memories[n];
      return attention(at, "cross_attention", [queries, keys_hsd, values_hsd], null);
    });
    yield;
    x = sublayer(at, layer, "feed_forward", x, (y) => feedForward(at, y));
    yield;
    layers.push(layer);
  }
  return { ids, embedding, layers, output_tm: lastNorm(model, "decoder", x) };
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

export const trace = atOnce(traceSlices);

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
  const width = model.config.width;
  const scale = Math.sqrt(width);
  const shape = [ids.length, width];
  const scaled_tm = tensor(shape);
  ids.forEach((id, t) => row(scaled_tm, t).set(row(matrix, id).map((value) => value * scale)));
  const positions_tm = positionsOf(model, start, ids.length);
  const sum_tm = switches.positions ? plus(scaled_tm, positions_tm) : scaled_tm;
  return { scaled_tm, positions_tm, sum_tm };
}

// Sines in even columns, cosines in odd ones (§3.5).
function positionsOf(model, start, count) {
  const angles = model.weights["positions.angles"].data; // of position 1
  const y = tensor([count, 2 * angles.length]);
  for (let t = 0; t < count; t++) {
    angles.forEach((first, i) => {
      const angle = Math.fround((start + t) * first);
      row(y, t).set([Math.sin(angle), Math.cos(angle)], 2 * i);
    });
  }
  return y;
}

// Weight and bias of a linear layer or a norm of the layer `at`.
export function parameters({ model, name }, module) {
  const [stack, n] = name.split(".");
  const path = `${stack}.layers.${n}.${module}`;
  return { weight: model.weights[path + ".weight"], bias: model.weights[path + ".bias"] };
}

// (t, parts · h · d) ─▶ for each part (h, t, d).
function headsOf({ model }, projected, parts) {
  const { heads, width } = model.config;
  return Array.from({ length: parts }, (_, part) =>
    split(projected, part * width, heads, width / heads));
}

// Runs a sub-layer with the way around it, and notes both in `layer`: what goes on is returned.
// post: norm(x + sublayer(x)); pre: x + sublayer(norm(x)).
function sublayer(at, layer, name, input_tm, compute) {
  const { weight, bias } = parameters(at, name + "_norm");
  const pre = at.model.config.norm === "pre";
  const normed = pre ? layerNorm(input_tm, weight, bias) : null;
  const computed = compute(normed ?? input_tm);
  const around = !at.switches.residualsOff.has(`${at.name}.${name}`);
  const output = dropped(at.switches, `${at.name}.${name}`, computed.output_tm);
  const sum_tm = around ? plus(input_tm, output) : output;
  const normed_tm = normed ?? layerNorm(sum_tm, weight, bias);
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

// f(xW₁ + b₁)W₂ + b₂; the paper's f is max(0, x) (§3.3).
function feedForward(at, x) {
  const activation = ACTIVATIONS[at.model.config.activation];
  const [first, second] = ["inner", "outer"].map((part) => parameters(at, `feed_forward.${part}`));
  const inner_tf = linear(x, first.weight, first.bias);
  inner_tf.data.forEach((value, i) => { inner_tf.data[i] = activation(value); });
  return { inner_tf, output_tm: linear(inner_tf, second.weight, second.bias) };
}

// Pre-norm stacks end with a norm.
export function lastNorm({ config, weights }, stack, x) {
  if (config.norm !== "pre") return x;
  return layerNorm(x, weights[stack + ".last_norm.weight"], weights[stack + ".last_norm.bias"]);
}
