// All charts, in their order on the page. `low` and `high` name columns with the smallest and the
// largest value of the steps of a point. With `band` they are values of each step. `unitOf` derives the chart's unit from the unit of the
// loss: runs with different units have separate charts.

import { scoreTitle } from "./words.js";

const LOSS = "training loss";
const SMOOTHED = "training loss (smoothed)";

const natsPer = (unit) => `nats per ${unit}`;
const OF_STEPS = [
  { key: "loss", title: LOSS, unitOf: natsPer, low: "loss_min", high: "loss_max" },
  { key: "nll", title: "training NLL", unitOf: (unit) => `${natsPer(unit)}, without label smoothing` },
  { key: "grad_norm", title: "gradient norm", unit: "", high: "grad_norm_max" },
  { key: "learning_rate", title: "learning rate", unit: "" },
  { key: "target_tokens_per_second", title: "speed", unitOf: (unit) => `${unit}s/s` },
  { key: "tflops_per_second", title: "model TFLOP/s", unit: "all ranks, 10¹² operations/s" },
  { key: "mfu", title: "MFU", unit: "share of the GPUs' peak" },
  { key: "step_seconds", title: "seconds per step", unit: "s" },
  { key: "data_stall_seconds", title: "waiting for data", unit: "s per step" },
  { key: "compute_seconds_median", title: "computing", unit: "s per step; median and range",
    low: "compute_seconds_min", high: "compute_seconds_max", band: true },
  { key: "wait_seconds", title: "waiting for other ranks", unit: "s per step" },
  { key: "checkpoint_stall_seconds", title: "waiting for checkpoints", unit: "s" },
  { key: "world_size", title: "ranks", unit: "" },
  { key: "goodput", title: "goodput", unit: "share of time in the curve" },
];

// Shown until the user chooses: the charts that a researcher needs first.
const AT_FIRST = ["loss", "grad_norm", "learning_rate", "target_tokens_per_second",
  "data_stall_seconds", "checkpoint_stall_seconds"];

const SCORE = "score.";
const SCORES_PER_UNIT = ["loss", "alone_loss", "perplexity"];

// The name of the minimised loss: with label smoothing it does not compare with a validation's
// loss.
export function lossName(standing) {
  return standing?.smooths_labels ? SMOOTHED : LOSS;
}

// All charts of runs with these scores, by name: the training loss, the scores, and the rest.
// `smoothed`: true if a run smooths labels; then its NLL, which is comparable, comes first.
export function measures(scoresByName, smoothed) {
  const scores = [...scoresByName].map(([name, score]) => (
    { key: SCORE + name, title: scoreTitle(name, score), score: name, ...unitOfScore(name) }
  ));
  const [loss, nll, ...rest] = OF_STEPS;
  if (!smoothed) return [loss, ...scores, nll, ...rest];
  const named = { ...loss, title: SMOOTHED };
  return [{ ...nll, first: true }, named, ...scores, ...rest];
}

// The charts to show: the chosen ones, or the default ones.
export function shown(all, chosen) {
  const isShown = (measure) => (chosen
    ? chosen.includes(measure.key)
    : AT_FIRST.includes(measure.key) || measure.first || (measure.score && measure.score !== "loss"));
  return all.filter(isShown);
}

// A chart for each unit in which runs have a measure: {…measure, title, unit, runs}, `runs` by id.
// The runs are given as {id, task, lossUnit, smooths}.
export function charts(measures, runs) {
  return measures.flatMap((measure) => {
    const { unitOf } = measure;
    if (!unitOf) return [{ ...measure, runs: runs.map(({ id }) => id) }];
    const units = [...new Set(runs.map(unitKey))];
    return units.map((unit) => {
      const members = runs.filter((run) => unitKey(run) === unit);
      const title = measure.title === SMOOTHED && !members.some(({ smooths }) => smooths) ? LOSS : measure.title;
      const named = { ...measure, title, unit: unitOf(unit), runs: members.map(({ id }) => id) };
      // the title is unique: it names the chart
      return units.length > 1 ? { ...named, title: `${title}, ${named.unit}`, unit: "" } : named;
    });
  });
}

// An extension may have any unit: only runs of the same task are sure to share it.
function unitKey({ lossUnit, task }) {
  return lossUnit ?? `${task} unit`;
}

function unitOfScore(name) {
  if (!SCORES_PER_UNIT.includes(name)) return { unit: "validation" };
  const per = name === "perplexity" ? (unit) => `per ${unit}` : natsPer;
  return { unitOf: (unit) => `validation, ${per(unit)}` };
}
