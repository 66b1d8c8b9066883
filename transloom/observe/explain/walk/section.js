// The sections of a trace, by the family of its model, and a section as an element. Sections are
// described in translation.js.

import { element } from "../../drawing/elements.js";
import { quoting } from "../../drawing/parts.js";
import { sectionsOfContinuation, sectionsOfFilling } from "./texts.js";
import { sectionsOfTranslation } from "./translation.js";

export const sectionsOf = {
  translation: sectionsOfTranslation,
  continuation: sectionsOfContinuation,
  filling: sectionsOfFilling,
};

export const leadOf = (section) => element("p", { class: "lead" }, quoting(section.lead));

// A section with its title, which draws its parts when `draw` is called for the first time.
export function sectionElement({ group, name, title, parts, ...section }, number) {
  const id = `section-${number}`;
  const made = element("section",
    { id, tabindex: -1, class: "drawn", "data-group": group, "data-name": name },
    element("h1", {}, quoting(title)), leadOf(section));
  made.draw = () => {
    made.draw = null;
    const drawn = parts(id).flat(Infinity);
    made.append(...drawn);
    for (const part of drawn) {
      const key = part.getAttribute("data-key");
      if (key) part.setAttribute("id", `${id}-${key}`);
    }
  };
  return made;
}

// The fragment that leads to each box of the model's figure. `others` are the sections from 2 on.
export function placesOf(others) {
  return new Map(others.flatMap(({ shows }, n) => Object.entries(shows).flatMap(([key, boxes]) =>
    boxes.map((box) => [box, `section-${n + 2}${key && `-${key}`}`]))));
}
