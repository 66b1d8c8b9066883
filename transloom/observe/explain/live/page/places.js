// The tensors of a trace by their place in it, such as "encoder.layers.0.self_attention.mix_htd",
// and what their axes stand for. The letters behind the last underscore name the axes: see
// forward.js. A cell is {key, head, row, column}; without heads, head is null.

import { heatMap } from "../../../drawing/heat_map.js";
import { rowsOf } from "../../walk/trace.js";

export const PART_NAMES = {
  self_attention: "self-attention",
  cross_attention: "cross-attention",
  feed_forward: "feed-forward",
};
const TENSOR_NAMES = {
  scaled_tm: "embedding × √width",
  positions_tm: "positions",
  sum_tm: "sum of the inputs",
  queries_htd: "queries",
  keys_hsd: "keys",
  values_hsd: "values",
  scores_hts: "scores",
  weights_hts: "weights",
  mix_htd: "mix: weights · values",
  output_tm: "output",
  inner_tf: "inner numbers",
  input_tm: "input",
  normed_tm: "norm",
  tokens_tm: "embedding",
  segments_tm: "segments",
  states_nm: "hidden state",
  inner_nm: "head: inner numbers",
  normed_nm: "head: norm",
};
// In the order of computation; what only repeats another tensor is left out.
const TENSORS_OF = {
  attention: ["queries_htd", "keys_hsd", "values_hsd", "scores_hts", "weights_hts", "mix_htd"],
  embedding: ["tokens_tm", "positions_tm", "segments_tm", "sum_tm", "normed_tm"], // of one stack
  head: ["states_nm", "inner_nm", "normed_nm"], // of a masked model
  residual: { post: ["sum_tm", "normed_tm"], pre: ["sum_tm"] },
};

export function tensorAt(traced, key) {
  return key.split(".").reduce((part, name) => part[name], traced);
}

export function numberAt(traced, { key, head, row, column }) {
  const { shape, data } = tensorAt(traced, key);
  const rows = shape.at(-2);
  return data[((head ?? 0) * rows + row) * shape.at(-1) + column];
}

// The cell of a trace that a row of numbers has in a column, if the row is a view of one of its tensors.
export function cellOf(model, traced, line, column) {
  for (const key of keysOf(model, traced)) {
    const { shape, data } = tensorAt(traced, key);
    const place = (line.byteOffset - data.byteOffset) / data.BYTES_PER_ELEMENT + column;
    if (line.buffer !== data.buffer || place < 0 || place >= data.length) continue;
    const [height, width] = shape.slice(-2);
    const [row, head] = [Math.floor(place / width) % height, Math.floor(place / width / height)];
    return { key, head: hasHeads(key) ? head : null, row, column: place % width };
  }
  return null;
}

// The places of all tensors of a trace.
export function keysOf(model, traced) {
  return [...allPlaces(model).map(({ key }) => key), "logits_tv", "probabilities_tv"]
    .filter((key) => tensorAt(traced, key));
}

export function isSameCell(one, other) {
  return Boolean(one && other) && ["key", "head", "row", "column"].every((name) => one[name] === other[name]);
}

export function hasHeads(key) {
  return /_h..$/.test(key);
}

// All tensors that a model may have, in the order of computation: [{group, key}].
export function allPlaces({ config }) {
  const found = [];
  const add = (group, key) => found.push({ group, key });
  for (const stack of config.stack ? [config.stack] : ["encoder", "decoder"]) {
    const title = stack[0].toUpperCase() + stack.slice(1);
    const added = config.positions === "rotary" ? [] : ["positions_tm"];
    (config.stack ? TENSORS_OF.embedding : ["scaled_tm", ...added, "sum_tm"]).forEach((name) =>
      add(`${title}: input`, `${stack}.embedding.${name}`));
    for (let n = 0; n < config[stack + "_layers"]; n++) {
      const group = `${title} layer ${n + 1}`;
      const parts = ["self_attention", "cross_attention", "feed_forward"];
      for (const part of config.stack || stack === "encoder" ? [parts[0], parts[2]] : parts) {
        const key = `${stack}.layers.${n}.${part}`;
        if (config.norm === "pre") add(group, `${key}_residual.normed_tm`);
        const own = part === "feed_forward" ? ["inner_tf"] : TENSORS_OF.attention;
        [...own, "output_tm"].forEach((name) => add(group, `${key}.${name}`));
        TENSORS_OF.residual[config.norm].forEach((name) => add(group, `${key}_residual.${name}`));
      }
    }
    add(stack === "encoder" && !config.stack ? "Memory" : `${title}: output`, `${stack}.output_tm`);
  }
  if (config.stack === "encoder") TENSORS_OF.head.forEach((key) => add("Head", key));
  return found;
}

// "self-attention: queries", without the layer.
export function nameOf(key) {
  if (key === "logits_tv") return "logits";
  if (key === "probabilities_tv") return "probabilities";
  if (/^\w+\.output_tm$/.test(key)) return `output of the ${key.split(".")[0]}`;
  if (key in TENSOR_NAMES) return TENSOR_NAMES[key];
  const [part, name] = key.split(".").slice(-2);
  if (part === "embedding") return TENSOR_NAMES[name];
  const around = part.endsWith("_residual");
  const shown = PART_NAMES[part.replace("_residual", "")];
  if (around && name === "sum_tm") return `${shown}: input + output`;
  if (around && name === "output_tm") return `${shown}: result of the sub-layer`;
  return `${shown}: ${TENSOR_NAMES[name]}`;
}

// "Encoder layer 1, self-attention: queries"
export function fullNameOf(key) {
  const [stack, , n] = key.split(".");
  if (key.includes(".layers.")) {
    return `${stack[0].toUpperCase() + stack.slice(1)} layer ${Number(n) + 1}, ${nameOf(key)}`;
  }
  return key.includes(".") && !key.endsWith("output_tm") ? `${stack}, ${nameOf(key)}` : nameOf(key);
}

// "Encoder layer 1, self-attention"
export function nameOfAttention(key) {
  return fullNameOf(`${key}.weights_hts`).replace(/: weights$/, "");
}

// The labels of rows and columns. `pieces`: {source, target, hidden, vocabulary}, of which a masked model's
// head reads the hidden ones; equal ones get their positions.
export function labelsOf(key, traced, pieces) {
  const own = key.startsWith("encoder.") ? pieces.source
    : (!key.includes(".") && pieces.hidden) || pieces.target;
  const other = key.includes("cross_attention.") ? pieces.source : own;
  const [rowAxis, columnAxis] = key.slice(-2);
  const [t, s] = [own, other].map((texts) => texts.map((text, n) =>
    (texts.indexOf(text) === texts.lastIndexOf(text) ? text : `${text} (${n})`)));
  const texts = { t, n: t, s };
  const { shape } = tensorAt(traced, key);
  return {
    rows: texts[rowAxis],
    columns: texts[columnAxis] ?? (columnAxis === "v" ? pieces.vocabulary
      : Array.from({ length: shape.at(-1) }, (_, n) => String(n))),
    columnsArePieces: columnAxis === "s" || columnAxis === "v",
  };
}

// The map of a tensor, or of one of its heads.
export function mapOf({ title, key, head, result, greatest }) {
  const { rows, columns, columnsArePieces } = labelsOf(key, result.traced, result.pieces);
  const figure = heatMap({ title, rows, columns: columnsArePieces ? columns : null, greatest,
    isShare: key.endsWith("weights_hts"), values: rowsOf(tensorAt(result.traced, key), head) });
  return Object.assign(figure, { key, head, result });
}
