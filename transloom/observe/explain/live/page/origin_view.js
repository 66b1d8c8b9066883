// The origin of a number, next to its map or matrix: its formula and terms, whose origins can be opened
// in turn. The numbers that went into it are highlighted in the matrices on the screen.

import { element, nodes } from "../../../drawing/elements.js";
import { paint } from "../../../drawing/heat_map.js";
import { whenInView } from "../../../drawing/in_view.js";
import { formatPrecise } from "../../../drawing/numbers.js";
import { pictureOf } from "../../../drawing/product.js";
import { rowsOfTerms, termsTable } from "../../../drawing/terms.js";
import { visible } from "../../../drawing/text.js";
import { originOf } from "./origins.js";
import { cellOf, fullNameOf, isSameCell, labelsOf, nameOf, numberAt } from "./places.js";

// The element of a panel of origins, which moves to the map or the matrix of its number.
export const originElement = () => element("div", { class: "origin live", "data-live": "origin", tabindex: -1,
  hidden: true, role: "region", "aria-label": "Where a number comes from" });

// Open the origin of each number that is chosen in a map. A panel is {model, origin, plain, back, ahead, map,
// part}: `plain` is the result whose numbers the maps have unless a map has another, and `back` and `ahead`
// are the cells between which the reader goes.
export function openFromMaps(panel) {
  document.addEventListener("numberchosen", ({ target, detail: { line, column } }) => {
    const result = target.result ?? panel.plain;
    const cell = result && cellOf(panel.model, result.traced, line, column);
    if (!cell) return;
    panel.back = []; // the previous origin has led to another number
    openOrigin(panel, cell, result, target);
  });
}

// `result` is the one that has the number: of the model as it was trained, or with switches. `map` is
// the figure of the map in which it was chosen, which keeps the origin; null for a candidate.
export function openOrigin(panel, cell, result, map = null) {
  Object.assign(panel, { map, ahead: [], back: [...panel.back, { cell, result }] });
  goToOrigin(panel);
}

// The origin takes the focus. Of a map, nothing moves unless the title of the origin is off the screen.
function goToOrigin(panel, from = null) {
  showOrigin(panel, from);
  panel.origin.focus({ preventScroll: true });
  panel.origin.firstChild.scrollIntoView({ block: "nearest" }); // with its margins, see live.css
}

// `from`: the cell that was shown before and led back to this one, or null.
export function showOrigin(panel, from = null) {
  const { model, back, ahead, origin } = panel;
  origin.hidden = !back.length;
  placeOrigin(panel);
  if (!back.length) return;
  const { cell, result } = back.at(-1);
  const found = originOf(model, result.traced, cell, result.switches);
  origin.replaceChildren(...nodes([
    element("h3", { "aria-level": panel.map ? 2 : null }, cellName(cell, result)),
    stepTo(panel, back.length > 1, "← previous number", back, ahead), " ",
    stepTo(panel, ahead.length > 0, "next number →", ahead, back),
    element("p", { class: "value" }, formatPrecise(numberAt(result.traced, cell))),
    element("p", {}, element("code", {}, found.formula)),
    ...pictureOf(found.product),
    ...(found.note ? [element("p", {}, found.note)] : []),
    termsTable(rowsOfTerms(found, ({ place, factor }) => isSameCell(place, from) || isSameCell(factor, from)),
      (term) => termName(term, found.terms, cell, result),
      (place) => openOrigin(panel, place, result, panel.map), found.names)]));
}

// A button that moves a number from the end of one list to that of the other.
function stepTo(panel, isThere, name, from, to) {
  return isThere && element("button", { type: "button", onclick: () => {
    const { cell } = panel.back.at(-1);
    to.push(from.pop());
    goToOrigin(panel, cell);
  } }, name);
}

// Move the origin into the map of its number, or below the candidates, and mark what went into the number in
// the matrices that are there.
export function placeOrigin({ part, model, back, origin, map }) {
  const shown = back.at(-1);
  if (map?.isConnected) {
    if (origin.parentElement !== map) map.append(origin);
  } else part(shown?.cell.key === "probabilities_tv" ? "steps" : "matrices")?.after(origin);
  const terms = shown ? originOf(model, shown.result.traced, shown.cell, shown.result.switches).terms : [];
  const places = terms.flatMap(({ place, factor }) => [place, factor]);
  for (const figure of part("matrices")?.children ?? []) {
    const lit = places.filter((place) => figure.result === shown.result && place?.key === figure.key &&
      place.head === figure.head);
    if (!lit.length && !figure.lit?.length) continue;
    figure.lit = lit;
    whenInView(figure, () => paint(figure));
  }
}

function cellName({ key, head, row: r, column }, { traced, pieces }) {
  const { rows, columns, columnsArePieces } = labelsOf(key, traced, pieces);
  const inHead = head === null ? "" : `, head ${head + 1}`;
  const where = columnsArePieces ? `“${visible(columns[column])}”` : `number ${column}`;
  return `${fullNameOf(key)}${inHead}: row “${visible(rows[r])}”, ${where}`;
}

// Of a term, for the table of the number in `cell`.
function termName({ place }, terms, cell, result) {
  if (!place) return "the matrix";
  const { columns, columnsArePieces } = labelsOf(place.key, result.traced, result.pieces);
  const elsewhere = place.head !== null && place.head !== cell.head;
  const label = columnsArePieces ? visible(columns[place.column])
    : place.column === cell.column && terms.length < 3 ? nameOf(place.key) : place.column;
  return `${elsewhere ? `head ${place.head + 1}, ` : ""}${label}`;
}
