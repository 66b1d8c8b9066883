// What if? A checkbox for each part that can be switched off.

import { element } from "../../../drawing/elements.js";
import { NOTHING_SWITCHED } from "./forward.js";
import { PART_NAMES } from "./places.js";

export function freshSwitches() {
  return { ...NOTHING_SWITCHED, headsOff: new Set(), residualsOff: new Set() };
}

export function isSwitched({ headsOff, residualsOff, positions, scaledScores, mask }) {
  return headsOff.size + residualsOff.size > 0 || !positions || !scaledScores || !mask;
}

// What can be switched off: each has a checkbox, checked as long as it is on; `compute` follows.
export function showSwitches(panel, compute) {
  const { part, model: { config }, switches } = panel;
  const box = (label, isOn, set) => element("label", {},
    element("input", { type: "checkbox", checked: isOn, onchange: (event) => {
      set(event.target.checked);
      compute();
    } }), ` ${label}`);
  const inSet = (name, value, label) => box(label, !switches[name].has(value), (isOn) =>
    switches[name][isOn ? "delete" : "add"](value));
  const flag = (name, label) => box(label, switches[name], (isOn) => {
    switches[name] = isOn;
  });
  const group = (title, ...boxes) => element("fieldset", {}, element("legend", {}, title), boxes);
  const layers = ["encoder", "decoder"].flatMap((stack) =>
    Array.from({ length: config[stack + "_layers"] }, (_, n) => {
      const parts = ["self_attention", ...(stack === "decoder" ? ["cross_attention"] : [])];
      const layer = `${stack}.${n}`;
      const title = `${stack[0].toUpperCase() + stack.slice(1)} layer ${n + 1}`;
      return group(title,
        ...parts.flatMap((name) => Array.from({ length: config.heads }, (_, h) =>
          inSet("headsOff", `${layer}.${name}.${h}`, `${PART_NAMES[name]}, head ${h + 1}`))),
        ...[...parts, "feed_forward"].map((name) =>
          inSet("residualsOff", `${layer}.${name}`,
            `residual connection of the ${PART_NAMES[name]}`)));
    }));
  part("switches").replaceChildren(
    group("All layers", flag("positions", "positions are added"),
      flag("scaledScores", "scores are divided by √d"),
      flag("mask", "the mask hides later rows")),
    ...layers);
}
