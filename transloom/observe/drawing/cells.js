// Shows the number of a cell: under the pointer, and for the keyboard and screen readers, for which
// each map is a grid. Rows are created when they are visited, because maps may have thousands.

import { element } from "./elements.js";
import { formatNumber } from "./numbers.js";

const DECIMALS = 4;
const tip = document.getElementById("tip");
let visited = 0;

function nameOf({ rows, columns }, row, column) {
  return columns ? `${rows[row]} → ${columns[column]}` : `${rows[row]}, dimension ${column}`;
}

function numberIn({ values }, row, column) {
  const value = values[row][column];
  return value === null ? "masked" : formatNumber(value, DECIMALS);
}

function tell(map, row, column, x, y) {
  tip.textContent = `${nameOf(map, row, column)}: ${numberIn(map, row, column)}`;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - width - 8)) + "px";
  tip.style.top = Math.max(4, y - height - 10) + "px";
}

function cellAt({ target, offsetX, offsetY }) {
  const figure = target.closest?.("figure.map");
  if (!figure?.layout || target.tagName !== "CANVAS") return null;
  const { left, top, cell } = figure.layout;
  const row = Math.floor((offsetY - top) / cell.height);
  const column = Math.floor((offsetX - left) / cell.width);
  return figure.map.values[row]?.[column] === undefined ? null : { figure, row, column };
}

function pointed(event) {
  tip.hidden = true;
  const at = cellAt(event);
  if (at) tell(at.figure.map, at.row, at.column, event.clientX, event.clientY);
}

// Tells a page with origins of numbers which number was chosen: the row's numbers, and the column.
function choose({ figure, row, column }) {
  const line = figure.map.lines?.[row]; // a map of the time-lapse has none
  if (!line) return;
  document.querySelectorAll(".grid .frame").forEach((frame) => { frame.hidden = true; });
  frameOf(figure, row, column);
  figure.dispatchEvent(new CustomEvent("numberchosen", { bubbles: true, detail: { line, column } }));
}

// Puts the frame of a map around a cell, from which the arrow keys then move.
function frameOf(figure, row, column) {
  const { left, top, cell } = figure.layout;
  const frame = figure.querySelector(".frame");
  figure.querySelector(".grid").at = [row, column];
  frame.hidden = false;
  Object.entries({
    left: left + column * cell.width, top: top + row * cell.height,
    width: Math.max(3, cell.width), height: cell.height,
  }).forEach(([side, pixels]) => { frame.style[side] = pixels + "px"; });
  return frame;
}

// Adds the visited cell to the grid for assistive technology, and puts a frame around it.
function visit(grid, row, column) {
  const figure = grid.closest("figure");
  const map = figure.map;
  const id = `cell-${++visited}`; // a new one each time: it is announced because it is another
  const head = map.columns ? ` → ${map.columns[column]}` : `, dimension ${column}`;
  grid.querySelector(".visited").replaceChildren(element("span", { role: "row", "aria-rowindex": row + 1 },
    element("span", { role: "rowheader" }, map.rows[row]),
    element("span", { role: "gridcell", id, "aria-colindex": column + 1 }, `${head}: ${numberIn(map, row, column)}`)));
  grid.setAttribute("aria-activedescendant", id);
  const frame = frameOf(figure, row, column);
  frame.scrollIntoView({ block: "nearest", inline: "nearest" });
  const box = frame.getBoundingClientRect();
  tell(map, row, column, box.right - 10, box.top);
}

// The grid of an element if it is a map with a layout. The document listens for all maps, because maps change.
function gridOfMap(target) {
  return target.closest?.("figure.map")?.layout && target.closest(".grid");
}

function pressed(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const grid = gridOfMap(event.target);
  if (!grid) return;
  const figure = grid.closest("figure");
  const [row, column] = grid.at ?? [0, 0];
  if (event.key === "Enter") choose({ figure, row, column });
  const moved = {
    ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
    Home: [row, 0], End: [row, figure.map.values[0].length - 1],
  }[event.key];
  if (!moved) return;
  event.preventDefault();
  const inside = (place, count) => Math.max(0, Math.min(count - 1, place));
  visit(grid, inside(moved[0], figure.map.values.length), inside(moved[1], figure.map.values[0].length));
}

document.addEventListener("keydown", pressed);
document.addEventListener("click", (event) => {
  const at = cellAt(event);
  if (at) choose(at);
});
document.addEventListener("focusin", ({ target }) => {
  const grid = gridOfMap(target);
  if (grid?.matches(":focus-visible")) visit(grid, ...(grid.at ?? [0, 0]));
});
document.addEventListener("focusout", ({ target, relatedTarget }) => {
  const grid = gridOfMap(target);
  if (!grid) return;
  tip.hidden = true;
  // The origin of a number is shown within the figure of its map.
  grid.querySelector(".frame").hidden = !grid.parentElement.contains(relatedTarget);
});
document.addEventListener("pointermove", pointed);
document.addEventListener("pointerdown", pointed);
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
