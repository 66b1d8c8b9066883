// Where a number comes from, beside the map or the matrix that has it: its formula and terms, each of
// which can be asked in turn. What went into it is lit in the matrices on the screen.

import { element, nodes } from "../../../drawing/elements.js";
import { formatPrecise } from "../../../drawing/numbers.js";
import { pictureOf } from "../../../drawing/product.js";
import { rowsOfTerms, termsTable } from "../../../drawing/terms.js";
import { visible } from "../../../drawing/text.js";
import { originOf } from "./origins.js";
import { fullNameOf, isSameCell, labelsOf, nameOf, numberAt } from "./places.js";

// `result` is the one that has the number: of the model as it was trained, or with switches. `map` is
// the figure of the map in which it was chosen, which keeps the origin; null for a matrix.
export function openOrigin(panel, cell, result, map = null) {
  Object.assign(panel, { map, ahead: [], back: [...panel.back, { cell, result }] });
  goToOrigin(panel);
}

// The origin takes the focus. Of a map, nothing moves unless the title of the origin is off the screen.
function goToOrigin(panel, from = null) {
  showOrigin(panel, from);
  const lit = panel.map ? null : panel.part("matrices").querySelector("[aria-current]");
  lit?.scrollIntoView({ block: "nearest", inline: "nearest" });
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
    element("h3", { "aria-level": panel.map?.closest(".first-screen") ? 2 : null }, cellName(cell, result)),
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

// Move the origin into the map, or below the matrix of its number; if neither is on the screen, leave it
// where it is. Light the number and what went into it in the matrices that are there.
export function placeOrigin({ part, model, back, origin, map }) {
  const shown = back.at(-1);
  const figures = [...part("matrices").children].filter(({ matrix }) => matrix);
  const has = (figure, place) => figure.result === shown?.result && place?.key === figure.matrix.key &&
    place.head === figure.matrix.head;
  const beside = !shown ? part("matrices") : shown.cell.key === "probabilities_tv" ? part("steps")
    : figures.find((figure) => has(figure, shown.cell));
  if (!shown || !map?.isConnected) beside?.after(origin);
  else if (origin.parentElement !== map) map.append(origin);
  const terms = shown ? originOf(model, shown.result.traced, shown.cell, shown.result.switches).terms : [];
  const marks = [["aria-selected", terms.flatMap(({ place, factor }) => [place, factor])],
    ["aria-current", [shown?.cell]]];
  for (const [name, places] of marks) {
    for (const figure of figures) {
      figure.querySelectorAll(`[${name}]`).forEach((cell) => cell.removeAttribute(name));
      const [table] = figure.getElementsByTagName("table");
      places.filter((place) => has(figure, place)).forEach(({ row, column }) =>
        table.rows[row + 1].cells[column + 1].setAttribute(name, "true"));
    }
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
