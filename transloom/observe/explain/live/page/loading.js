// Unpacks the model in the page: one object with all its weights.
//
//   JSON beside the script ─▶ base 85 ─▶ deflate ─▶ bytes ─▶ tensors by name, normaliser's tables
//
// A tensor is {shape, data}: float32, row by row. Weights have the names of the model's state dict.

import { bytesOfBase85, inflated, joinedPlanes } from "./bytes.js";
import { SentencePiece } from "./pieces.js";

const modelsInPage = new Map(); // by the id of their element

// The model in an element of the page, which is unpacked once for all callers.
export function modelInPage(id) {
  if (!modelsInPage.has(id)) {
    const packed = JSON.parse(document.getElementById(id).textContent);
    modelsInPage.set(id, loadLiveModel(packed));
  }
  return modelsInPage.get(id);
}

// Resolves to the model. Rejects where the browser cannot inflate, so that the page stays as it is.
export async function loadLiveModel({ data, weights: shapes, tokenizers: described, ...rest }) {
  const bytes = await inflated(bytesOfBase85(data, rest.bytes));
  const weights = {};
  const count = rest.floats;
  const numbers = joinedPlanes(bytes.subarray(0, 4 * count), count);
  let first = 0;
  for (const [name, shape] of shapes) {
    const size = shape.reduce((product, length) => product * length, 1);
    weights[name] = { shape, data: numbers.subarray(first, first + size) };
    first += size;
  }
  let at = 4 * count;
  const tokenizers = described.map((one) => {
    const rules = bytes.subarray(at, at + one.charsmap_bytes);
    at += one.charsmap_bytes;
    return new SentencePiece(one, rules);
  });
  return { ...rest, weights, source: tokenizers[0], target: tokenizers.at(-1) };
}
