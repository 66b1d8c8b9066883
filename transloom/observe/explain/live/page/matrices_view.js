// Every matrix of the forward pass: the chosen matrix of each head, as trained and next to it with
// the switches applied.

import { drawArcs, legendOf, tableOfArcs } from "../../../drawing/attention.js";
import { greatestIn, paintAll } from "../../../drawing/heat_map.js";
import { makeSavable, savable, standalone } from "../../../drawing/saving.js";
import { placeOrigin } from "./origin_view.js";
import { fullNameOf, hasHeads, labelsOf, mapOf, nameOf, tensorAt } from "./places.js";
import { replaceOneByOne } from "./slices.js";
import { rowsOf } from "../../walk/trace.js";

export function showMatrices(panel) {
  return panel.inTurn.matrices.run(matricesSlices(panel));
}

function* matricesSlices(panel) {
  showArcs(panel);
  const { part, plain, changed, looksAt, model } = panel;
  const heads = hasHeads(looksAt) ? [...Array(model.config.heads).keys()] : [null];
  const results = changed
    ? [["as trained", plain], ["with your changes", changed]] : [["", plain]];
  // Both maps of a head have one scale.
  const maps = heads.flatMap((head) => {
    const greatest = Math.max(...results.map(([, { traced }]) => greatestIn(rowsOf(tensorAt(traced, looksAt), head))));
    return results.map(([whose, result]) => {
      const title = [head === null ? nameOf(looksAt) : `head ${head + 1}`, whose].filter(Boolean).join(", ");
      return { title, greatest, result, key: looksAt, head };
    });
  });
  if (!panel.map?.isConnected || part("matrices").contains(panel.map)) part("matrices").after(panel.origin);
  yield* replaceOneByOne(part("matrices"), maps, mapOf);
  placeOrigin(panel);
  paintAll(part("matrices"));
  makeSavable(part("matrices"));
}

// Shows the matrices of another place.
export function lookAt(panel, key) {
  panel.looksAt = key;
  panel.part("places").value = key;
  panel.part("places").focus();
  return showMatrices(panel);
}

// Of the attention whose matrices are shown; with other places, of the last one.
function showArcs(panel) {
  const { part, plain, changed } = panel;
  const base = panel.looksAt.replace(/\.[^.]+$/, "");
  if (base.endsWith("attention")) panel.arcsOf = `${base}.weights_hts`;
  const key = panel.arcsOf;
  const result = changed ?? plain;
  const { rows, columns } = labelsOf(key, result.traced, result.pieces);
  const weights = tensorAt(result.traced, key);
  part("arcs-name").textContent = fullNameOf(key) + (changed ? ", with your changes. " : ". ");
  part("legend").replaceChildren(...legendOf(panel.model.config.heads));
  drawArcs(part("arcs"), weights, rows, columns);
  part("arcs-save").replaceChildren();
  savable(part("arcs-save"), {
    title: () => fullNameOf(key), table: () => tableOfArcs(weights, rows, columns),
    svg: () => standalone(part("arcs")),
  });
}
