// Where a number comes from, beside the matrix that has it: its formula and terms, each of which can
// be asked in turn. What went into it is lit in the matrices on the screen.

import { element } from "../../../drawing/elements.js";
import { formatPrecise } from "../../../drawing/numbers.js";
import { pictureOf } from "../../../drawing/product.js";
import { rowsOfTerms, termsTable } from "../../../drawing/terms.js";
import { visible } from "../../../drawing/text.js";
import { originOf } from "./origins.js";
import { fullNameOf, isSameCell, labelsOf, nameOf, numberAt } from "./places.js";

// `result` is the one that has the number: of the model as it was trained, or with switches.
export function openOrigin(panel, cell, result) {
  panel.back.push({ cell, result });
  goToOrigin(panel);
}

function goToOrigin(panel, from = null) {
  showOrigin(panel, from);
  panel.part("matrices").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  panel.origin.focus({ preventScroll: true });
  panel.origin.firstChild.scrollIntoView({ block: "nearest" }); // with its margins, see live.css
}

// `from`: the cell that was shown before and led back to this one, or null.
export function showOrigin(panel, from = null) {
  const { model, back, origin } = panel;
  origin.hidden = !back.length;
  placeOrigin(panel);
  if (!back.length) return;
  const { cell, result } = back.at(-1);
  const found = originOf(model, result.traced, cell, result.switches);
  origin.replaceChildren(
    element("h3", {}, cellName(cell, result)),
    ...(back.length > 1 ? [element("button", { type: "button",
      onclick: () => goToOrigin(panel, back.pop().cell) }, "← previous number")] : []),
    element("p", { class: "value" }, formatPrecise(numberAt(result.traced, cell))),
    element("p", {}, element("code", {}, found.formula)),
    ...pictureOf(found.product),
    ...(found.note ? [element("p", {}, found.note)] : []),
    termsTable(rowsOfTerms(found, ({ place, factor }) => isSameCell(place, from) || isSameCell(factor, from)),
      (term) => termName(term, found.terms, cell, result), (place) => openOrigin(panel, place, result), found.names));
}

// Move the origin below the matrix of its number; if that is not on the screen, leave it where it is.
// Light the number and what went into it in the matrices that are there.
export function placeOrigin({ part, model, back, origin }) {
  const shown = back.at(-1);
  const figures = [...part("matrices").children].filter(({ matrix }) => matrix);
  const has = (figure, place) => figure.result === shown?.result && place?.key === figure.matrix.key &&
    place.head === figure.matrix.head;
  const beside = !shown ? part("matrices") : shown.cell.key === "probabilities_tv" ? part("steps")
    : figures.find((figure) => has(figure, shown.cell));
  beside?.after(origin);
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
