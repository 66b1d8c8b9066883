// Heat maps of a trace's tensors, cut where a model or a sentence is too large for a page. Each map
// says which part it leaves out, and a map of weights how much of a row that is.

import { heatMap } from "../../drawing/heat_map.js";
import { formatNumber } from "../../drawing/numbers.js";
import { rowOfHeads, rowsOf } from "./trace.js";

// "the first 4 of 6 layers", or nothing where all are shown.
export function leftOut(total, limit, noun) {
  return total > limit ? `the first ${limit} of ${total} ${noun}` : "";
}

// One vector per row, from a tensor (rows, width).
export function vectors({ model: { limits } }, title, tensor, labels) {
  return drawn(title, tensor.shape, rowsOf(tensor, null, limits.pieces, limits.numbers), labels);
}

// A vector for each label, which has `width` numbers.
export function chosenVectors({ model: { limits } }, title, rows, labels, width) {
  return drawn(title, [rows.length, width], rows.map((one) => one.subarray(0, limits.numbers)), labels);
}

// One head's part of each vector, from a tensor (heads, rows, width of a head).
export function headVectors(trace, title, tensor, head, labels) {
  const { limits } = trace.model;
  const rows = rowsOf(tensor, head, limits.pieces, numbersOfHead(trace));
  return drawn(title, tensor.shape.slice(1), rows, labels);
}

// The vectors of row t, one for each head.
export function vectorsOfHeads(trace, title, tensor, t) {
  const { limits, form } = trace.model;
  const rows = rowOfHeads(tensor, limits.heads, t, numbersOfHead(trace));
  return drawn(title, [rows.length, form.head_width], rows, headNames(trace));
}

export function headNames({ model: { limits, form } }) {
  return Array.from({ length: Math.min(form.heads, limits.heads) }, (_, h) => `head ${h + 1}`);
}

// All heads together have at most so many numbers in a row.
function numbersOfHead({ model: { limits, form } }) {
  return Math.max(1, Math.floor(limits.numbers / Math.min(form.heads, limits.heads)));
}

// Scores or weights: a row per query, a column per key. `isMasked`: a row sees no later ones.
const ofHead = (limit, isShare) =>
  ({ model: { limits } }, title, tensor, head, labels, columns, isMasked) => looking(title,
    rowsOf(tensor, head, limits[limit]), labels, columns, limits, isShare, tensor.shape.at(-2), isMasked);
export const scoresOfHead = ofHead("pieces", false);
export const weightsOfHead = ofHead("attended", true);

// Row t of all heads, over so many columns as have labels.
export function rowOfAllHeads(trace, title, tensor, t, columns, isShare) {
  const { limits } = trace.model;
  const rows = rowOfHeads(tensor, limits.heads, t, columns.length);
  return looking(title, rows, headNames(trace), columns, limits, isShare, rows.length);
}

function looking(title, rows, labels, columns, limits, isShare, height, isMasked = false) {
  const missing = isShare ? missingShare(rows, limits.attended) : "";
  return heatMap({
    title, isShare, isMasked, rows: labels.slice(0, rows.length), columns: columns.slice(0, limits.attended),
    values: rows.map((line) => line.subarray(0, limits.attended)), shape: [height, columns.length],
    cuts: [leftOut(height, rows.length, "rows"),
      leftOut(columns.length, limits.attended, "columns") + missing],
  });
}

// The share of a row in columns that are not shown: the maximum of all rows, rounded up.
function missingShare(rows, limit) {
  const sums = rows.map((line) => line.subarray(limit)
    .reduce((sum, weight) => sum + Math.max(0, weight), 0));
  const most = Math.ceil(Math.max(...sums) * 1000) / 1000;
  return most ? `; the others have up to ${formatNumber(most, 3)} of a row` : "";
}

function drawn(title, [height, width], values, labels) {
  return heatMap({
    title, values, rows: labels.slice(0, values.length), shape: [height, width],
    cuts: [leftOut(height, values.length, "rows"), leftOut(width, values[0].length, "columns")],
  });
}
