// Conversion of a record's columns to the data of a chart: pure functions.
//
//   columns {step: […], loss: […], …} ─xs─▶ the axis ─smoothed─▶ the line

export const AXES = {
  step: { name: "step", unit: "" },
  tokens: { name: "data so far", unit: "" },
  hours: { name: "hours", unit: "h" },
  effective: { name: "effective hours", unit: "h" },
};

// Positions of the points on an axis. Hours count the training time of the run; effective hours
// count the time of the steps in the curve. A record without these counts uses its timestamps.
export function xs(columns, axis) {
  if (axis === "tokens") return columns.target_tokens_seen;
  if (axis === "hours") return hours(columns, columns.wall_seconds);
  if (axis === "effective") return hours(columns, columns.counted_seconds);
  return columns.step;
}

function hours(columns, seconds) {
  if (seconds?.some((value) => value !== null)) {
    return seconds.map((value) => (value === null ? null : value / 3600));
  }
  const begun = columns.time?.find((value) => value !== null) ?? 0;
  return (columns.time ?? []).map((value) => (value === null ? null : (value - begun) / 3600));
}

// Position of a step on an axis, interpolated between the neighbouring points.
export function xAtStep(columns, axis, step) {
  if (axis === "step") return step;
  return between(columns.step, xs(columns, axis), step);
}

// The step at a position of an axis.
export function stepAtX(columns, axis, x) {
  if (axis === "step") return Math.round(x);
  const step = between(xs(columns, axis), columns.step, x);
  return step === null ? null : Math.round(step);
}

// Interpolates the value in `to` for the value `at` of the growing list `from`; constant beyond the
// ends.
function between(from, to, at) {
  if (!from?.length) return null;
  const right = firstFrom(from, at);
  if (right === from.length) return to[from.length - 1];
  if (from[right] === at || right === 0) return to[right];
  const share = (at - from[right - 1]) / (from[right] - from[right - 1]);
  if (to[right - 1] === null || to[right] === null) return to[right];
  return to[right - 1] + share * (to[right] - to[right - 1]);
}

// Index of the first value of a growing list that is not below `least`.
export function firstFrom(values, least) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < least) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Index of the value closest to `x` in a growing list.
export function nearest(values, x) {
  const right = firstFrom(values, x);
  if (right === 0) return 0;
  if (right === values.length) return right - 1;
  return x - values[right - 1] <= values[right] - x ? right - 1 : right;
}

// An exponential moving average without a bias to 0 at its start. Unknown values stay unknown.
export function smoothed(values, weight) {
  if (!weight) return values;
  let average = 0;
  let known = 0;
  return values.map((value) => {
    if (value === null || value === undefined) return null;
    average = weight * average + (1 - weight) * value;
    known = weight * known + (1 - weight);
    return average / known;
  });
}

// The values that a logarithmic axis can show.
export function positive(values) {
  return values.map((value) => (value > 0 ? value : null));
}

// Appends columns of newer steps, in place; steps that exist already are skipped.
export function append(columns, newer) {
  const last = columns.step.at(-1) ?? 0;
  const from = firstFrom(newer.step, last + 1);
  for (const [name, values] of Object.entries(columns)) {
    const more = newer[name] ?? newer[name.replace(/_(min|max)$/, "")];
    for (let n = from; n < newer.step.length; n++) values.push(more?.[n] ?? null);
  }
  return newer.step.length - from;
}

// The points of a validation score, as {step, value}.
export function scorePoints(validations, name) {
  return validations
    .filter(({ scores }) => scores[name]?.value !== null && scores[name]?.value !== undefined)
    .map(({ step, scores }) => ({ step, value: scores[name].value }));
}

// Selects at most `most` evenly spaced rows for a readable table, including the last row.
export function readable(rows, most) {
  if (rows.length <= most) return rows;
  const kept = [];
  for (let n = 0; n < most; n++) {
    kept.push(rows[Math.round((n * (rows.length - 1)) / (most - 1))]);
  }
  return kept;
}

// Indexes of known values without a known neighbour, of which no line is drawn. A value is
// undefined where only other lines have a point; such places do not count as neighbours.
export function lonely(values) {
  const isKnown = (value) => value !== null && value !== undefined;
  const places = [...values.keys()].filter((n) => values[n] !== undefined);
  return places.filter((n, at) => isKnown(values[n])
    && !isKnown(values[places[at - 1]]) && !isKnown(values[places[at + 1]]));
}

// A range for an axis, widened if it is a single position.
export function widened(ends) {
  return ends && ends[0] === ends[1] ? [ends[0] - 0.5, ends[1] + 0.5] : ends;
}

// The lowest and the highest number, or null; for lists too long to be arguments.
export function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined || Number.isNaN(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}
