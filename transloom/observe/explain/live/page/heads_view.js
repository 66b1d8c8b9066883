// All heads together: small maps, arcs, and the occlusion next to the attention.

import { smallMaps } from "../../../drawing/attention.js";
import { element } from "../../../drawing/elements.js";
import { heatMap, paintAll } from "../../../drawing/heat_map.js";
import { formatPrecise } from "../../../drawing/numbers.js";
import { makeSavable } from "../../../drawing/saving.js";
import { attentionsOf, lengthsTaken, meanCrossAttention, occlusionSlices } from "./heads.js";
import { lookAt } from "./matrices_view.js";
import { labelsOf, tensorAt } from "./places.js";
import { replaceOneByOne } from "./slices.js";
import { rowsOf } from "../../walk/trace.js";

const MOST_OCCLUDED = 40; // pieces, each of which takes a forward pass

export function showHeads(panel) {
  if (panel.part("needed-fold").open) showNeeded(panel);
  return panel.inTurn.heads.run(headsSlices(panel));
}

function* headsSlices(panel) {
  const { part, plain, changed, model } = panel;
  const result = changed ?? plain;
  const byLength = part("measure").value === "lengths";
  const measured = [];
  for (const attention of attentionsOf(model)) {
    const found = byLength ? lengthsTaken(model, result.traced, attention.key, result.switches)
      : tensorAt(result.traced, attention.key).weights_hts;
    measured.push({ attention, found });
    yield;
  }
  const full = byLength ? measured.reduce((most, { found }) =>
    found.data.reduce((a, b) => Math.max(a, b), most), 1e-9) : 1;
  part("measure-scale").textContent = `full colour: ${byLength ? formatPrecise(full) : "1"}` +
    (changed ? ", with your changes" : "");
  yield* replaceOneByOne(part("small-maps"), measured, ({ attention, found }) =>
    smallMaps(attention, found,
      labelsOf(`${attention.key}.weights_hts`, result.traced, result.pieces), full,
      () => lookAt(panel, `${attention.key}.weights_hts`)));
}

export function showNeeded(panel) {
  return panel.inTurn.needed.run(neededSlices(panel));
}

function* neededSlices({ part, plain, changed, model }) {
  const result = changed ?? plain;
  part("needed").replaceChildren(...(result.ids.length > MOST_OCCLUDED
    ? [element("p", {},
      `These are ${result.ids.length} pieces, but this table supports up to ${MOST_OCCLUDED}.`)]
    : yield* neededBesideLooked(model, result)));
  paintAll(part("needed"));
  makeSavable(part("needed"));
}

// The occlusion of each chosen piece by pieces of the sentence, next to the attention, as two maps.
function* neededBesideLooked(model, result) {
  const { source } = result.pieces;
  const rows = result.chosen.map((id) => model.target.pieces[id]);
  const map = (title, isShare, looked_ts, columns) =>
    heatMap({ title, isShare, rows, columns, values: rowsOf(looked_ts, null) });
  return [
    map("needed: nats lost without the piece", false, yield* occlusionSlices(model, result),
      source.slice(0, -1)),
    map("attention: mean of all heads", true, meanCrossAttention(model, result.traced), source),
  ];
}
