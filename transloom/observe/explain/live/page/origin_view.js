// Where a number comes from: its formula and terms, each of which can be asked in turn.

import { element } from "../../../drawing/elements.js";
import { formatPrecise } from "../../../drawing/numbers.js";
import { pictureOf } from "../../../drawing/product.js";
import { visible } from "../../../drawing/text.js";
import { originOf } from "./origins.js";
import { fullNameOf, labelsOf, nameOf, numberAt } from "./places.js";
import { shapesOf } from "./shapes.js";

const MOST_TERMS = 12; // of the largest shares; the others stand as their sum

// `result` is the one that has the number: of the model as it was trained, or with switches.
export function openOrigin(panel, cell, result) {
  panel.back.push({ cell, result });
  showOrigin(panel);
  panel.part("origin").focus();
}

export function showOrigin(panel) {
  const { part, model, back } = panel;
  const shown = back.at(-1);
  if (!shown) {
    part("origin").replaceChildren(element("p", { class: "quiet" },
      "Choose any number above to see here how it was computed."));
    return;
  }
  const { cell, result } = shown;
  const found = originOf(model, result.traced, cell, result.switches);
  part("origin").replaceChildren(
    element("h3", {}, cellName(cell, result)),
    element("p", { class: "value" }, formatPrecise(numberAt(result.traced, cell))),
    element("p", {}, element("code", {}, found.formula)),
    ...pictureOf(shapesOf(model, result.traced, cell, result.switches)),
    ...(found.note ? [element("p", {}, found.note)] : []),
    ...(found.terms.length ? [termsTable(panel, found, cell, result)] : []),
    ...(back.length > 1 ? [element("button", { type: "button", onclick: () => {
      back.pop();
      showOrigin(panel);
      part("origin").focus();
    } }, "← previous number")] : []));
}

function cellName({ key, head, row: r, column }, { traced, pieces }) {
  const { rows, columns, columnsArePieces } = labelsOf(key, traced, pieces);
  const inHead = head === null ? "" : `, head ${head + 1}`;
  const where = columnsArePieces ? `“${visible(columns[column])}”` : `number ${column}`;
  return `${fullNameOf(key)}${inHead}: row “${visible(rows[r])}”, ${where}`;
}

// The terms with the largest shares, and how much the others add up to.
function termsTable(panel, { terms, added }, cell, result) {
  const order = terms.map((term, n) => ({ ...term, n }))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value) || a.n - b.n);
  const shown = order.slice(0, MOST_TERMS);
  const rest = order.slice(MOST_TERMS);
  const multiplied = terms.some(({ b }) => b !== null);
  const name = ({ place, n }) => {
    if (!place) return "the matrix";
    const { rows, columns, columnsArePieces } = labelsOf(place.key, result.traced, result.pieces);
    const elsewhere = place.head !== null && place.head !== cell.head;
    const inHead = elsewhere ? `head ${place.head + 1}, ` : "";
    const label = columnsArePieces ? visible(columns[place.column])
      : place.column === cell.column && terms.length < 3 ? nameOf(place.key) : place.column;
    return `${inHead}${label}`;
  };
  const line = (term) => element("tr", {},
    element("th", { scope: "row", dir: "auto" }, name(term)),
    element("td", {}, term.place
      ? element("button", { type: "button", class: "number",
        "aria-label": `${formatPrecise(term.a)}: show where this number comes from`,
        onclick: () => openOrigin(panel, term.place, result) }, formatPrecise(term.a))
      : formatPrecise(term.a)),
    ...(multiplied ? [element("td", {}, term.b === null ? "" : `× ${formatPrecise(term.b)}`)] : []),
    element("td", {}, formatPrecise(term.value)));
  const sumLine = (label, value) => element("tr", { class: "sum" },
    element("th", { scope: "row" }, label), element("td"), ...(multiplied ? [element("td")] : []),
    element("td", {}, formatPrecise(value)));
  const total = (some) => some.reduce((sum, { value }) => sum + value, 0);
  const titles = ["term", "number", ...(multiplied ? ["factor"] : []), "result"];
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Terms" },
    element("table", {},
      element("thead", {}, element("tr", {},
        titles.map((title) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, shown.map(line),
        ...(rest.length ? [sumLine(`${rest.length} smaller terms`, total(rest))] : []),
        ...(added === null ? [] : [sumLine("+ bias", added)]),
        sumLine("sum", total(order) + (added ?? 0)))));
}
