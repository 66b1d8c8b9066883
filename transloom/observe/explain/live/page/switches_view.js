// What if? A checkbox for each part that can be switched off, and what the switches change.

import { element } from "../../../drawing/elements.js";
import { formatPercent, formatSigned } from "../../../drawing/numbers.js";
import { pieceText } from "../../../drawing/parts.js";
import { NOTHING_SWITCHED } from "./forward.js";
import { allPlaces, PART_NAMES } from "./places.js";
import { translationLine } from "./translation_view.js";

export function freshSwitches() {
  return { ...NOTHING_SWITCHED, headsOff: new Set(), residualsOff: new Set() };
}

export function isSwitched({ headsOff, residualsOff, positions, scaledScores, mask }) {
  return headsOff.size + residualsOff.size > 0 || !positions || !scaledScores || !mask;
}

// All switches of a model: {group, label, name, value}. A value is a member of the set of that name, which
// has what is off; without one, the switch itself is true or false.
export function allSwitches(model) {
  const flag = (name, label) => ({ group: "All layers", label, name, value: null });
  const ofLayers = allPlaces(model).flatMap(({ group, key }) => {
    const value = key.replace(/\.layers|(_residual)?\.\w+$/g, ""); // "encoder.0.self_attention"
    const shown = PART_NAMES[value.split(".")[2]];
    if (key.endsWith("_residual.sum_tm")) {
      return { group, label: `residual connection of the ${shown}`, name: "residualsOff", value };
    }
    return key.endsWith(".weights_hts") ? Array.from({ length: model.config.heads }, (_, h) =>
      ({ group, label: `${shown}, head ${h + 1}`, name: "headsOff", value: `${value}.${h}` })) : [];
  });
  const positions = model.config.positions === "rotary" ? "queries and keys are rotated by their position"
    : "positions are added";
  return [flag("positions", positions), flag("scaledScores", "scores are divided by √d"),
    flag("mask", "the mask hides later rows"), ...ofLayers];
}

export function flip(switches, { name, value }, isOn) {
  if (value === null) switches[name] = isOn;
  else switches[name][isOn ? "delete" : "add"](value);
}

// Each switch has a checkbox, checked as long as its part is on; `compute` follows.
export function showSwitches({ part, model, switches }, compute) {
  const all = allSwitches(model);
  const box = (one) => element("label", {}, element("input", {
    type: "checkbox", checked: one.value === null ? switches[one.name] : !switches[one.name].has(one.value),
    onchange: ({ target }) => {
      flip(switches, one, target.checked);
      compute();
    },
  }), ` ${one.label}`);
  part("switches").replaceChildren(...[...new Set(all.map(({ group }) => group))].map((title) =>
    element("fieldset", {}, element("legend", {}, title),
      all.filter(({ group }) => group === title).map(box))));
}

// The probability that changes most, both after the same pieces: {t, id, before, after}.
export function largestChange(plain, changed) {
  const { shape, data: before } = plain.traced.probabilities_tv;
  const { data: after } = changed.traced.probabilities_tv;
  const at = before.reduce((most, _, n) =>
    (Math.abs(after[n] - before[n]) > Math.abs(after[most] - before[most]) ? n : most), 0);
  return { t: Math.floor(at / shape[1]), id: at % shape[1], before: before[at], after: after[at] };
}

// Both translations, and the probability that changes most.
export function showEffect({ part, plain, changed, model }) {
  if (!changed) return part("effect").replaceChildren(element("p", { class: "quiet" }, "All parts are on."));
  const { t, id, before, after } = largestChange(plain, changed);
  part("effect").replaceChildren(
    translationLine("As trained: ", plain), translationLine("With your changes: ", changed),
    element("p", {}, ...(after === before ? ["No probability changes."] : [
      `The largest change of a probability is in step ${t + 1}: `,
      pieceText(model.target.pieces[id]),
      ` from ${formatPercent(before)} to ${formatPercent(after)} (${formatSigned(after - before)}).`])));
}
