// Every matrix of the forward pass: the one that is chosen, of each head, and as it was trained beside
// what switches make of it.

import { drawArcs, legendOf, tableOfArcs } from "../../../drawing/attention.js";
import { greatestOfMatrix, gridOf } from "../../../drawing/grid.js";
import { savable, standalone } from "../../../drawing/saving.js";
import { openOrigin, placeOrigin } from "./origin_view.js";
import { fullNameOf, hasHeads, labelsOf, matrixOf, nameOf, tensorAt } from "./places.js";
import { replaceOneByOne } from "./slices.js";

export function showMatrices(panel) {
  return panel.inTurn.matrices.run(matricesSlices(panel));
}

function* matricesSlices(panel) {
  showArcs(panel);
  const { part, plain, changed, looksAt, model } = panel;
  const heads = hasHeads(looksAt) ? [...Array(model.config.heads).keys()] : [null];
  const results = changed
    ? [["as trained", plain], ["with your changes", changed]] : [["", plain]];
  const shared = document.documentElement.dataset.scale === "shared";
  const all = heads.map((head) => results.map(([whose, result]) => {
    const title = [head === null ? nameOf(looksAt) : `head ${head + 1}`, whose].filter(Boolean).join(", ");
    return { title, result, matrix: matrixOf(looksAt, head, result.traced, result.pieces) };
  }));
  const grids = all.flatMap((some) => {
    const scale = (shared ? all.flat() : some).map(({ matrix }) => greatestOfMatrix(matrix));
    return some.map((grid) => ({ ...grid, greatest: Math.max(...scale) }));
  });
  part("matrices").after(panel.origin);
  yield* replaceOneByOne(part("matrices"), grids, ({ title, matrix, greatest, result }) =>
    Object.assign(gridOf(title, matrix, greatest, (cell) => openOrigin(panel, cell, result)),
      { matrix, result }));
  placeOrigin(panel);
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
