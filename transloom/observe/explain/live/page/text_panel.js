// The box of the first screen in which a text is typed that a language model continues or a masked model
// fills in, and the settings of sampling beside the softmax. All sections follow.

import { element } from "../../../drawing/elements.js";
import { modelInPage } from "./loading.js";
import { openFromMaps, originElement, showOrigin } from "./origin_view.js";
import { slicesInTurn, whenTyped } from "./slices.js";
import { computeTextSlices } from "./texts.js";
import { showFailure, staleNote, typingBox } from "../../walk/first_screen.js";
import { liveTrace } from "../../walk/trace.js";
import { facts, showTraceSlices, walkShown } from "../../walk/walk.js";

const FIELDS = {
  temperature: ["Temperature", { min: 0, max: 10, step: "any" }],
  top_k: ["top-k", { min: 0, step: 1 }],
  top_p: ["top-p", { min: 0.001, max: 1, step: "any" }],
};

// Settings of `transloom generate`; with temperature 0, the search is greedy. `changed` is called with
// valid settings.
function samplingControls(model, changed) {
  const { seed: ownSeed, ...own } = model.decoding;
  const inputs = Object.entries(FIELDS).map(([name, [label, range]]) => element("input", {
    name, type: "number", required: true, value: name === "temperature" ? 0 : own[name], ...range,
    "aria-label": label, oninput: () => inputs.every((input) => input.checkValidity()) && changed(),
  }));
  const seed = element("select", { "aria-label": "seed", onchange: changed }, Object.keys(model.draws)
    .map((value) => element("option", { value, selected: Number(value) === ownSeed }, value)));
  return {
    node: element("p", { class: "controls" }, [...inputs, seed].map((input) =>
      element("label", {}, `${input.getAttribute("aria-label")} `, input))),
    sampling: () => {
      const values = Object.fromEntries(inputs.map(({ name, valueAsNumber }) => [name, valueAsNumber]));
      return values.temperature > 0 ? { ...values, seed: Number(seed.value) } : null;
    },
  };
}

async function start() {
  const model = await modelInPage("live-model");
  const panel = { model, origin: originElement(), plain: null, part: () => null };
  const inTurn = slicesInTurn(walkShown, (message) => first.say(message, ...staleNote(panel.plain?.text)));
  function* shownSlices(sampling, controls) {
    const plain = yield* computeTextSlices(model, first.box.value, sampling);
    Object.assign(panel, { plain, back: [], ahead: [], map: null });
    showOrigin(panel);
    yield* showTraceSlices({ ...liveTrace(facts, model, plain), controls });
    return plain;
  }
  const compute = async () => {
    const { sampling, node } = controls ?? {};
    const started = performance.now();
    const active = document.activeElement; // it may be one of the controls, which move
    const found = await inTurn.run(shownSlices(sampling?.(), node));
    if (!found) return;
    if (node?.contains(active)) active.focus();
    await first.sayComputed(started, `type any text${found.places ? " with [MASK]" : ""}`);
  };
  openFromMaps(panel);
  const soon = whenTyped(inTurn, compute);
  const controls = model.draws ? samplingControls(model, soon) : null;
  const first = typingBox([model.text, ...model.examples], soon);
  if (facts.recorded) first.say("The command's text is too long to be computed here: type another one.");
  else await compute();
}

start().catch(showFailure);
