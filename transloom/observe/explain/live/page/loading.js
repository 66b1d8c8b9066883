"use strict";
// The model that lies in the page, made ready: one object with all its weights.
//
//   JSON beside the script ─▶ base 85 ─▶ deflate ─▶ bytes ─▶ tensors by name, normaliser's tables
//
// A tensor is {shape, data}: float32, row by row. Weights have the names of the model's state dict.

const modelsInPage = new Map(); // by the id of their element

// The model in an element of the page, unpacked once, however many ask for it.
function modelInPage(id) {
  if (!modelsInPage.has(id)) {
    const packed = JSON.parse(document.getElementById(id).textContent);
    modelsInPage.set(id, loadLiveModel(packed));
  }
  return modelsInPage.get(id);
}

// Resolves to the model. Rejects where the browser cannot inflate, so that the page stays as it is.
async function loadLiveModel(packed) {
  const bytes = await inflated(bytesOfBase85(packed.data, packed.bytes));
  const weights = {};
  const count = packed.floats;
  const numbers = joinedPlanes(bytes.subarray(0, 4 * count), count);
  let first = 0;
  for (const [name, shape] of packed.weights) {
    const size = shape.reduce((product, length) => product * length, 1);
    weights[name] = { shape, data: numbers.subarray(first, first + size) };
    first += size;
  }
  let at = 4 * count;
  const tokenizers = packed.tokenizers.map((described) => {
    const rules = bytes.subarray(at, at + described.charsmap_bytes);
    at += described.charsmap_bytes;
    return new SentencePiece(described, rules);
  });
  return {
    config: packed.config,
    decoding: packed.decoding,
    vocabulary: packed.vocabulary,
    sentence: packed.sentence, // the one that the page was made for
    training: packed.training,
    weights,
    source: tokenizers[0],
    target: tokenizers[tokenizers.length - 1],
  };
}

// Five characters are four bytes: see packing.py.
function bytesOfBase85(text, count) {
  const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" +
    "!#$%&()*+-;,=>?@^_`{|}~";
  const worth = new Uint8Array(128);
  [...digits].forEach((digit, n) => { worth[digit.charCodeAt(0)] = n; });
  const bytes = new Uint8Array((text.length / 5) * 4);
  for (let from = 0, to = 0; from < text.length; to += 4) {
    let word = 0;
    for (const end = from + 5; from < end; from++) word = word * 85 + worth[text.charCodeAt(from)];
    bytes[to] = word >>> 24;
    bytes[to + 1] = word >>> 16;
    bytes[to + 2] = word >>> 8;
    bytes[to + 3] = word;
  }
  return bytes.subarray(0, count);
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The float32 numbers whose first bytes all stand before all second bytes, and so on.
function joinedPlanes(planes, count) {
  const bytes = new Uint8Array(4 * count);
  for (let plane = 0; plane < 4; plane++) {
    for (let i = 0; i < count; i++) bytes[4 * i + plane] = planes[plane * count + i];
  }
  if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) { // a machine with the other byte order
    for (let i = 0; i < 4 * count; i += 4) bytes.subarray(i, i + 4).reverse();
  }
  return new Float32Array(bytes.buffer);
}
