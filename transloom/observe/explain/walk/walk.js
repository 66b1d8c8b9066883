// The sections of a page from one trace: all of them follow the sentence that was typed last. Each is
// drawn when it is shown first.
//
//   facts, recorded trace or live results ─▶ trace ─▶ sections ─▶ elements, and the list beside them

import { element } from "../../drawing/elements.js";
import { refresh } from "../page.js";
import { resultsShown, showFirstScreen } from "./first_screen.js";
import { leadOf, placesOf, sectionElement, sectionsOf } from "./section.js";
import { recordedTrace } from "./trace.js";
import { overview } from "./translation.js";

const data = document.getElementById("walk");
// What Python says of the model, and the trace of the page's sentence unless the model is in the page.
export const facts = data && JSON.parse(data.textContent);

const startingSections = ["section-1", "live", "compare"].map((id) => document.getElementById(id))
  .filter(Boolean);
const partOf = (name) => document.querySelector(`[data-walk="${name}"]`);
const drawnSections = () => [...document.querySelectorAll("main > section.drawn")];

// All elements with results, to be marked while a new trace is computed.
export function walkShown() {
  return [...resultsShown(), partOf("before"), partOf("after"), ...drawnSections()];
}

export function* showTraceSlices(trace) {
  const [first, ...others] = sectionsOf[trace.model.family](trace);
  showFirstScreen(trace);
  yield;
  showOverview(first);
  yield;
  const places = placesOf(others);
  const made = others.map((section, n) => sectionElement(section, n + 2));
  drawnSections().forEach((section) => section.remove());
  startingSections.at(-1).after(...made);
  refresh(places);
}

function showOverview(section) {
  partOf("before").replaceChildren(leadOf(section), ...section.parts().flat(Infinity));
  partOf("after").replaceChildren(...section.after().flat(Infinity));
}

// Adds the result of beam search to the texts about a trace.
export function showBeam(trace, beam) {
  showOverview(overview({ ...trace, beam }));
}

if (facts?.recorded) {
  recordedTrace(facts, facts.recorded).then((trace) => [...showTraceSlices(trace)], (error) => {
    partOf("before").replaceChildren(element("p", { role: "note" },
      `This browser cannot unpack the numbers of this page (${error.message}).`));
  });
}
