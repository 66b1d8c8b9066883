// Step by step: the most probable pieces, and what the rows of the layers would predict.

import { element } from "../../../drawing/elements.js";
import { formatPercent } from "../../../drawing/numbers.js";
import { cell, labelled, lensCell, pieceText, stepsTable } from "../../../drawing/parts.js";
import { visible } from "../../../drawing/text.js";
import { candidatesAt } from "./computing.js";
import { lensAt, lensSlices } from "./lens.js";
import { openOrigin } from "./origin_view.js";

const STEPS_SHOWN = 5; // candidates of a step

// A row for each step: the input, and the most probable pieces, each a button that opens its logit.
export function showSteps(panel) {
  const { part, plain, changed, model } = panel;
  const piece = (id) => visible(model.target.pieces[id]);
  const button = (result, t, { id, probability }) => element("button", {
    type: "button", class: id === plain.chosen[t] ? "candidate chosen" : "candidate",
    "aria-label": `${piece(id)}, ${formatPercent(probability)}: show where this number comes from`,
    onclick: () =>
      openOrigin(panel, { key: "probabilities_tv", head: null, row: t, column: id }, result),
  }, pieceText(model.target.pieces[id]), ` ${formatPercent(probability)}`);
  const candidates = (result, t) => cell(candidatesAt(result, t, STEPS_SHOWN)
    .map((candidate) => button(result, t, candidate)));
  const rows = plain.chosen.map((id, t) => labelled(`${t + 1}`, [
    cell(plain.pieces.target[t]), candidates(plain, t), changed && candidates(changed, t),
    cell(model.target.pieces[id])]));
  const titles = ["step", "input", changed ? "most probable, as trained" : "most probable next",
    ...(changed ? ["with your changes"] : []), "chosen"];
  part("steps").replaceChildren(stepsTable(titles, rows));
}

// A row for each step: the predictions of the layers' rows; the last one is the model's prediction.
export function showLens(panel) {
  return panel.inTurn.lens.run(lensViewSlices(panel));
}

function* lensViewSlices({ part, plain, changed, model }) {
  const lens = yield* lensSlices(model, (changed ?? plain).traced);
  const predicted = (reading, t) => {
    const { best, probability, ofChosen } = lensAt(reading, t, plain.chosen[t]);
    return lensCell(model.target.pieces[best], probability,
      best === plain.chosen[t] ? null : `chosen: ${formatPercent(ofChosen)}`);
  };
  const lines = plain.chosen.map((id, t) => labelled(`${t + 1}`,
    [lens.map((reading) => predicted(reading, t)), cell(model.target.pieces[id])]));
  const titles = ["step", ...lens.map(({ name }) => name), "chosen"];
  part("lens").replaceChildren(stepsTable(titles, lines, changed ? "with your changes" : null));
}
