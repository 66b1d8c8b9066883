// The report of an inspection: sentences, gradient norms and activations of each step.

import { element } from "./drawing/elements.js";
import { barOf, table } from "./dom.js";
import { counted } from "./drawing/numbers.js";
import { number, whole } from "./words.js";

const VERDICT = {
  same: "the same as recorded", different: "DIFFERENT from the record",
  unreadable: "no longer readable", not_compared: "not compared",
};

// The complete report, a part for each of its steps. `lossName`: the name of the minimised loss.
export function lookParts(look, lossName) {
  return [verdict(look), ...look.steps.map((step) => stepPart(step, lossName, look.steps.length > 1))];
}

// The verdict on losses, which must match up to rounding or to the last bit.
export function lossesText({ losses, to_the_last_bit: areBits, amplified_rounding: isAmplified, largest_difference: apart }) {
  if (losses !== "same" || areBits) return VERDICT[losses] ?? losses;
  if (!isAmplified) return "the same up to rounding";
  return `the same except for rounding, which training has amplified (up to ${apart.toExponential(1)} apart)`;
}

function verdict(look) {
  const { verdict: found } = look;
  const trained = `${counted(look.steps_trained, "step")} trained again from ${
    look.replayed_from ? `the checkpoint of step ${whole(look.replayed_from)}` : "the run's first weights"}`;
  const first = found.first_difference;
  return element("div", { class: found.same ? "verdict same" : "verdict different" },
    element("p", {}, element("b", {}, heading(found)),
      `${trained}. Data ${VERDICT[found.data] ?? found.data}, losses ${lossesText(found)}, `
      + `state ${VERDICT[found.state] ?? found.state}. `, element("small", {}, `Expected: ${found.promise}.`)),
    first && element("p", {}, `First difference: step ${whole(first.step)}, ${first.what}`
      + `${first.recorded === null ? "" : `: ${first.recorded} recorded, ${first.replayed} now`}. `
      + (first.details ?? []).join("; ")),
    found.ranks_for_bits && element("p", {}, "To compare every bit, run ", element("code", {},
      `transloom replay ${look.run} --steps ${look.from_step}:${look.to_step} --ranks ${found.ranks_for_bits}`)));
}

function heading({ same, to_the_last_bit: areBits }) {
  if (!same) return "The step differs from the record. ";
  return areBits ? "The step matches the record. " : "The step matches the record up to rounding. ";
}

function stepPart(step, lossName, isOneOfSeveral) {
  const below = isOneOfSeveral ? "h4" : "h3";
  return element("section", { class: "looked" },
    isOneOfSeveral && element("h3", {}, `Step ${whole(step.step)}`),
    element("p", {}, `${lossName} ${number(step.loss)}, recorded ${number(step.recorded_loss)}; `
      + `gradient norm ${number(step.grad_norm)}, recorded ${number(step.recorded_grad_norm)}.`),
    element(below, {}, `${counted(step.examples.length, "sentence")}, the largest loss first`),
    examplesTable(step),
    element("div", { class: "side-by-side" }, norms(step.gradient_norms, below), ranges(step.activations, below)));
}

function examplesTable(step) {
  const roles = [...new Set(step.examples.flatMap(({ texts }) => Object.keys(texts)))];
  const rows = step.examples.map((example) => [
    number(example.loss), share(example.share), ...roles.map((role) => example.texts[role] ?? ""),
    whole(example.tokens), whole(example.slot), whole(example.rank), example.corpus,
    element("span", { class: "unbroken" },
      `${example.shard} · ${whole(example.example)}${example.start ? ` from token ${whole(example.start)}` : ""}`),
  ]);
  const header = ["nats/token", "share of loss", ...roles, "tokens", "slot", "rank", "corpus", "shard · example"];
  return table(`Sentences of step ${step.step}`, header, rows,
    { quiet: true, texts: roles.map((_, n) => n + 2), tall: true });
}

function share(value) {
  if (value === null || value === undefined) return "–";
  return element("span", { class: "share" }, barOf(value), `${(100 * value).toFixed(1)} %`);
}

function norms(byLayer, heading) {
  const all = Object.entries(byLayer);
  const most = Math.max(0, ...all.map(([, norm]) => norm ?? 0));
  return element("div", {}, element(heading, {}, "Gradient norm by layer"),
    table("Gradient norm by layer", ["layer", "norm", "relative to the largest"], all.map(([layer, norm]) =>
      [layer, number(norm), barOf(most && (norm ?? 0) / most, "done wide")]), { quiet: true }));
}

function ranges(byLayer, heading) {
  return element("div", {}, element(heading, {}, "Activations by layer"),
    table("Activations by layer", ["layer", "minimum", "mean", "maximum", "largest magnitude"],
      Object.entries(byLayer).map(([layer, range]) => [
        layer, number(range.minimum), number(range.mean), number(range.maximum), number(range.largest_magnitude),
      ]), { quiet: true }));
}
