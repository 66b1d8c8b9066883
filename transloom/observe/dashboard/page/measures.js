// All charts, in their order on the page: the charts of the facts, and those of the scores. `low`
// and `high` name columns with the smallest and the largest value of the steps of a point. With
// `band` they are values of each step. `unitOf` derives the chart's unit from the unit of the loss:
// runs with different units have separate charts.

import { titleOf } from "./facts.js";
import { scoreTitle } from "./words.js";

const natsPer = (unit) => `nats per ${unit}`;
const SCORE = "score.";
const SCORES_PER_UNIT = ["loss", "alone_loss", "perplexity"];

// All charts of runs with these scores, by name: the training loss, the scores, and the rest.
// `smoothed`: true if a run smooths labels; then its NLL, which is comparable, comes first.
export function measures(facts, scoresByName, smoothed) {
  const scores = [...scoresByName].map(([name, score]) => (
    { key: SCORE + name, title: scoreTitle(name, score), score: name, ...unitOfScore(name) }
  ));
  const [loss, nll, ...rest] = facts.at("first chart", "chart").map(ofFact);
  if (!smoothed) return [loss, ...scores, nll, ...rest];
  const named = { ...loss, title: titleOf(facts.named("loss"), { smooths_labels: true }), plain: loss.title };
  return [{ ...nll, first: true }, named, ...scores, ...rest];
}

function ofFact({ name, title, unit, format, show, extremes, band }) {
  const [low, high] = band ?? ["min", "max"].map((kind) => extremes.includes(kind) && `${name}_${kind}`);
  return {
    key: name, title, format, low, high, band, first: show.includes("first chart"),
    ...(unit.includes("{unit}") ? { unitOf: (its) => unit.replace("{unit}", its) } : { unit }),
  };
}

// The charts to show: the chosen ones, or the default ones.
export function shown(all, chosen) {
  const isShown = (measure) => (chosen
    ? chosen.includes(measure.key)
    : measure.first || (measure.score && measure.score !== "loss"));
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
      const title = members.some(({ smooths }) => smooths) ? measure.title : measure.plain ?? measure.title;
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
