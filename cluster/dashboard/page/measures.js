// The charts that there are, in their order on the page. `low` and `high` name columns with the
// least and the largest value of the steps that a point stands for.

const OF_STEPS = [
  { key: "loss", title: "training loss", unit: "nats per token", low: "loss_min", high: "loss_max" },
  { key: "nll", title: "training NLL", unit: "nats per token, without label smoothing" },
  { key: "grad_norm", title: "gradient norm", unit: "", high: "grad_norm_max" },
  { key: "learning_rate", title: "learning rate", unit: "" },
  { key: "target_tokens_per_second", title: "speed", unit: "target tokens/s" },
  { key: "step_seconds", title: "seconds per step", unit: "s" },
  { key: "data_stall_seconds", title: "waiting for data", unit: "s per step" },
  { key: "checkpoint_stall_seconds", title: "waiting for checkpoints", unit: "s" },
  { key: "world_size", title: "ranks", unit: "" },
  { key: "goodput", title: "goodput", unit: "share of time in the curve" },
];

// What is shown until somebody chooses: what a researcher looks at first.
const AT_FIRST = ["loss", "grad_norm", "learning_rate", "target_tokens_per_second",
  "data_stall_seconds", "checkpoint_stall_seconds"];

const SCORE = "score.";

// All charts of runs with scores of these names: the training loss, the scores, and the rest.
export function measures(scoreNames, nameOf) {
  const scores = scoreNames.map((name) => (
    { key: SCORE + name, title: nameOf(name), unit: "validation", score: name }
  ));
  return [OF_STEPS[0], ...scores, ...OF_STEPS.slice(1)];
}

// Those to be shown: the chosen ones, or those for a start.
export function shown(all, chosen) {
  const isShown = (measure) => (chosen
    ? chosen.includes(measure.key)
    : AT_FIRST.includes(measure.key) || (measure.score && measure.score !== "loss"));
  return all.filter(isShown);
}
