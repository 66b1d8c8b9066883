// Numbers as packing.py writes them: base 85 ─▶ deflate ─▶ planes of bytes ─▶ float32.

// Five characters are four bytes: see packing.py.
export function bytesOfBase85(text, count) {
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

export async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The float32 numbers whose first bytes all stand before all second bytes, and so on.
export function joinedPlanes(planes, count) {
  const bytes = new Uint8Array(4 * count);
  for (let plane = 0; plane < 4; plane++) {
    for (let i = 0; i < count; i++) bytes[4 * i + plane] = planes[plane * count + i];
  }
  if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) { // a machine with the other byte order
    for (let i = 0; i < 4 * count; i += 4) bytes.subarray(i, i + 4).reverse();
  }
  return new Float32Array(bytes.buffer);
}
