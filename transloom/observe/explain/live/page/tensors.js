// Tensors {shape, data}: float32, row by row. Sums are taken in double precision and rounded once.

export function tensor(shape, data) {
  return { shape, data: data ?? new Float32Array(shape.reduce((a, b) => a * b, 1)) };
}

// Row `n` of a matrix, a view.
export function row(matrix, n) {
  const width = matrix.shape[1];
  return matrix.data.subarray(n * width, (n + 1) * width);
}

export function rowAsMatrix(matrix, n) {
  return tensor([1, matrix.shape[1]], row(matrix, n));
}

export function plus(a, b) {
  return tensor(a.shape, a.data.map((value, i) => value + b.data[i]));
}

// The sum of products of `count` numbers from two places on. Four sums go on beside each other, as a
// single one would wait for each of its additions.
function dotAt(a, i, b, j, count) {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  const whole = i + (count & ~3);
  const end = i + count;
  for (; i < whole; i += 4, j += 4) {
    s0 += a[i] * b[j];
    s1 += a[i + 1] * b[j + 1];
    s2 += a[i + 2] * b[j + 2];
    s3 += a[i + 3] * b[j + 3];
  }
  for (; i < end; i++, j++) s0 += a[i] * b[j];
  return (s0 + s1) + (s2 + s3);
}

export function dot(a, b, from = 0, to = a.length) {
  return dotAt(a, from, b, from, to - from);
}

// xWᵀ + b, (n, i) and (o, i) ─▶ (n, o), as torch.nn.Linear.
export function linear(x, weight, bias) {
  const [count, width] = x.shape;
  const outputs = weight.shape[0];
  const y = tensor([count, outputs]);
  for (let n = 0; n < count; n++) {
    for (let o = 0; o < outputs; o++) {
      const sum = dotAt(x.data, n * width, weight.data, o * width, width);
      y.data[n * outputs + o] = sum + (bias ? bias.data[o] : 0);
    }
  }
  return y;
}

// (x - mean) / √(variance + ε) · g + b, row by row (Ba et al. 2016), as torch.nn.LayerNorm; without
// the mean for RMS norms (Zhang & Sennrich 2019). Not all have a bias.
export function normalise(x, weight, bias, config) {
  const y = tensor(x.shape);
  for (let n = 0; n < x.shape[0]; n++) {
    const { mean, deviation } = moments(row(x, n), config);
    row(y, n).set(row(x, n).map(
      (value, i) => ((value - mean) / deviation) * weight.data[i] + (bias ? bias.data[i] : 0)));
  }
  return y;
}

export function meanOf(numbers) {
  return numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}

// The mean of numbers, 0 for RMS norms, and √(variance + ε).
export function moments(numbers, { norm_kind, norm_epsilon }) {
  const mean = norm_kind === "rms" ? 0 : meanOf(numbers);
  const squares = numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: Math.sqrt(squares / numbers.length + norm_epsilon) };
}

// exp(x) over the sum of all exp(x), of each run of `width` numbers.
export function softmax(x, width = x.shape.at(-1)) {
  const y = tensor(x.shape);
  for (let first = 0; first < x.data.length; first += width) {
    const from = x.data.subarray(first, first + width);
    const normaliser = logSumExp(from);
    y.data.set(from.map((value) => Math.exp(value - normaliser)), first);
  }
  return y;
}

export function logSumExp(numbers) {
  let greatest = -Infinity;
  for (const value of numbers) if (value > greatest) greatest = value;
  let sum = 0;
  for (const value of numbers) sum += Math.exp(value - greatest);
  return greatest + Math.log(sum);
}

// The place of the largest number that is not in `never`, the first of equal ones; -1 without any.
export function mostProbable(numbers, never = new Set()) {
  let best = -1;
  numbers.forEach((number, id) => {
    if (!never.has(id) && (best < 0 ? !Number.isNaN(number) : number > numbers[best])) best = id;
  });
  return best;
}

// Puts `one` into the `count` best, which are sorted by a field from the largest down, if it is one of
// them. Of equal ones, the earlier stays before the later.
export function keepBest(best, count, field, one) {
  if (best.length === count && !(one[field] > best[count - 1][field])) return;
  let place = best.length;
  while (place && one[field] > best[place - 1][field]) place--;
  best.splice(place, 0, one);
  if (best.length > count) best.pop();
}

// The non-linearities of model/blocks/feed_forward.py.
export const ACTIVATIONS = {
  relu: (x) => Math.max(0, x),
  gelu: (x) => (x * (1 + erf(x * Math.SQRT1_2))) / 2,
  gelu_tanh: (x) => x / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + Math.exp(-x)),
};

// silu(a) · b, of rows (t, 2f) whose halves are a and b (SwiGLU, Shazeer 2020).
export function gate({ shape: [length, both], data }) {
  const width = both / 2;
  return tensor([length, width], Float32Array.from({ length: length * width }, (_, n) => {
    const first = n + Math.floor(n / width) * width;
    return Math.fround(ACTIVATIONS.silu(data[first])) * data[first + width];
  }));
}

// 2/√π · e^(−x²) · Σ 2ⁿx²ⁿ⁺¹ / (1 · 3 · … · (2n + 1)), whose terms all have the sign of x
// (Abramowitz & Stegun 1964, 7.1.6).
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x); // to the last bit
  let [sum, term] = [x, x];
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 1e-17; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

// Cuts rows (t, h · d), from column `first` on, into heads (h, t, d): `sharing` of them are the same.
export function split(x, first, heads, headWidth, sharing = 1) {
  const [length, width] = x.shape;
  const y = tensor([heads, length, headWidth]);
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < length; t++) {
      const start = t * width + first + Math.floor(h / sharing) * headWidth;
      y.data.set(x.data.subarray(start, start + headWidth), (h * length + t) * headWidth);
    }
  }
  return y;
}

// Heads (h, t, d) side by side again: (t, h · d).
export function join(x) {
  const [heads, length, headWidth] = x.shape;
  const y = tensor([length, heads * headWidth]);
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < length; t++) {
      const start = (h * length + t) * headWidth;
      y.data.set(x.data.subarray(start, start + headWidth), (t * heads + h) * headWidth);
    }
  }
  return y;
}

// (h, t, d) and (h, s, d) ─▶ (h, t + s, d): rows of heads below those before.
export function below(a, b) {
  if (!a) return b;
  const [heads, length, width] = a.shape;
  const more = b.shape[1];
  const y = tensor([heads, length + more, width]);
  for (let h = 0; h < heads; h++) {
    const start = h * (length + more) * width;
    y.data.set(a.data.subarray(h * length * width, (h + 1) * length * width), start);
    y.data.set(b.data.subarray(h * more * width, (h + 1) * more * width), start + length * width);
  }
  return y;
}
