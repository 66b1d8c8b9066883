// From the columns of a record to what a chart draws: pure functions.
//
//   columns {step: […], loss: […], …} ─xs─▶ the axis ─smoothed─▶ the line

export const AXES = {
  step: { name: "step", unit: "" },
  tokens: { name: "target tokens", unit: "" },
  hours: { name: "hours", unit: "h" },
  effective: { name: "effective hours", unit: "h" },
};

// The place of each point on an axis. Hours are those in which the run was trained, effective hours
// the time in steps that are in the curve. A record that did not count them has its clock instead.
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

// The place of a step on an axis, between the points around it.
export function xAtStep(columns, axis, step) {
  if (axis === "step") return step;
  return between(columns.step, xs(columns, axis), step);
}

// The step at a place of an axis.
export function stepAtX(columns, axis, x) {
  if (axis === "step") return Math.round(x);
  const step = between(xs(columns, axis), columns.step, x);
  return step === null ? null : Math.round(step);
}

// What stands at `at` in `to`, as `at` stands in `from`, which grows; beyond the ends, the end.
function between(from, to, at) {
  if (!from?.length) return null;
  const right = firstFrom(from, at);
  if (right === from.length) return to[from.length - 1];
  if (from[right] === at || right === 0) return to[right];
  const share = (at - from[right - 1]) / (from[right] - from[right - 1]);
  if (to[right - 1] === null || to[right] === null) return to[right];
  return to[right - 1] + share * (to[right] - to[right - 1]);
}

// The first place of a growing list whose value is no less.
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

// The place of the value next to `x` in a growing list.
export function nearest(values, x) {
  const right = firstFrom(values, x);
  if (right === 0) return 0;
  if (right === values.length) return right - 1;
  return x - values[right - 1] <= values[right] - x ? right - 1 : right;
}

// An exponential moving average that is not drawn to 0 at its begin. Unknown values stay unknown.
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

// What a logarithmic axis can show of values.
export function positive(values) {
  return values.map((value) => (value > 0 ? value : null));
}

// Appends columns of newer steps, in place; steps that are there already are passed over.
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

// Of many rows so many that a table of them can be read, with the last one.
export function readable(rows, most) {
  if (rows.length <= most) return rows;
  const kept = [];
  for (let n = 0; n < most; n++) {
    kept.push(rows[Math.round((n * (rows.length - 1)) / (most - 1))]);
  }
  return kept;
}

// The places of known values without a known one beside them, of which no line is drawn. Where other
// lines alone have a point the value is undefined, and what is beside it lies beyond.
export function lonely(values) {
  const isKnown = (value) => value !== null && value !== undefined;
  const places = [...values.keys()].filter((n) => values[n] !== undefined);
  return places.filter((n, at) => isKnown(values[n])
    && !isKnown(values[places[at - 1]]) && !isKnown(values[places[at + 1]]));
}

// A range for an axis: one of a single place gets some room.
export function widened(ends) {
  return ends && ends[0] === ends[1] ? [ends[0] - 0.5, ends[1] + 0.5] : ends;
}

// The lowest and the highest of numbers, or null; for lists too long to be arguments.
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
