// A matrix as a table of numbers, which can be walked with the arrow keys; a cell is opened by a click,
// Enter or the space bar.

import { element } from "./elements.js";
import { formatNumber } from "./numbers.js";
import { savableMatrices } from "./saving.js";

const DEEPEST = 0.5; // how much of a colour a cell takes: text on it keeps a contrast of 4.5

// A matrix: `matrix` is {key, head, name, rows, columns, columnsArePieces, numbers (rows of numbers)},
// `greatest` the number of the full colour; `open`, if there is one, is called with {key, head, row, column}.
export function gridOf(title, matrix, greatest, open) {
  const { key, head, rows, columns, numbers } = matrix;
  const isShare = key.includes("weights") || key.includes("probabilities");
  const cells = numbers.map((line, r) => Array.from(line, (value, c) => {
    const cell = element("td", { role: "gridcell", tabindex: -1 }, formatNumber(value));
    if (value === -Infinity) cell.className = "masked";
    else shade(cell, value, greatest);
    cell.dataset.row = r;
    cell.dataset.column = c;
    return cell;
  }));
  const head1 = element("tr", { role: "row" }, element("td", { role: "presentation" }),
    Array.from(columns, (label) => element(
      "th", { role: "columnheader", scope: "col", dir: "auto",
        class: matrix.columnsArePieces ? "piece" : null },
      element("span", {}, label))));
  const body = cells.map((line, r) => element("tr", { role: "row" },
    element("th", { role: "rowheader", scope: "row", dir: "auto" }, rows[r]), line));
  const table = element("table", { role: "grid", "aria-label": title, class: open ? "numbers asked" : "numbers" },
    element("thead", { role: "rowgroup" }, head1), element("tbody", { role: "rowgroup" }, body));
  const opened = (target) => {
    const place = placeOfCell(target);
    if (place && open) open({ key, head, ...place });
  };
  walkable(table, cells);
  table.addEventListener("click", (event) => opened(event.target));
  table.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    opened(event.target);
  });
  const range = isShare ? "colours: 0 to 1" : `colours: ±${formatNumber(greatest)}`;
  const caption = element("figcaption", {}, title, " ",
    element("small", {}, `${rows.length} × ${columns.length} · ${range}`));
  savableMatrices(caption, matrix.name ? `${matrix.name}, ${title}` : title, () =>
    [{ title: range, rows, columns, values: numbers, signed: !isShare, full: greatest }]);
  return element("figure", { class: "matrix" }, caption,
    element("div", { class: "scroll" }, table));
}

// Give an element with a number the number's colour; `greatest` has the full one.
export function shade(cell, value, greatest) {
  const share = (DEEPEST * Math.min(1, Math.abs(value) / greatest)).toFixed(3);
  cell.style.background = `rgb(var(--${value < 0 ? "negative" : "positive"}) / ${share})`;
  return cell;
}

// Make one cell of the table reachable by Tab, and the others from it by the arrow keys. The table
// listens for its cells, of which it may have thousands.
function walkable(table, cells) {
  let reachable = cells[0]?.[0];
  if (reachable) reachable.tabIndex = 0;
  table.addEventListener("keydown", (event) => {
    const place = placeOfCell(event.target);
    if (!place) return;
    const { row: r, column: c } = place;
    const to = {
      ArrowUp: cells[r - 1]?.[c], ArrowDown: cells[r + 1]?.[c],
      ArrowLeft: cells[r][c - 1], ArrowRight: cells[r][c + 1],
      Home: cells[r][0], End: cells[r].at(-1),
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    to[event.key]?.focus();
  });
  table.addEventListener("focusin", ({ target }) => {
    const place = placeOfCell(target);
    if (!place) return;
    reachable.tabIndex = -1;
    reachable = cells[place.row][place.column];
    reachable.tabIndex = 0;
  });
}

// {row, column} of the cell that an element is in, or null.
function placeOfCell(target) {
  const cell = target.closest("td[data-row]");
  return cell && { row: Number(cell.dataset.row), column: Number(cell.dataset.column) };
}

export function greatestOfMatrix({ key, numbers }) {
  if (key.includes("weights")) return 1;
  const finite = numbers.flatMap((line) => Array.from(line).filter(Number.isFinite).map(Math.abs));
  return finite.reduce((a, b) => Math.max(a, b), 1e-9);
}
