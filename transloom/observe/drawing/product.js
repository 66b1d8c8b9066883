// A product of matrices as a picture: each matrix as a box as tall as it has rows and as wide as it has
// columns, with the row and the column that met, and the number that they gave.

import { element, svgMaker } from "./elements.js";

// A box's side for so many rows or columns: the more the longer, and all fit on a screen.
function lengthOfSide(count) {
  return Math.round(Math.max(16, Math.min(110, 13 * Math.log2(count + 1))));
}

// Matrices {name, rows, columns, row, column} and the signs between them, in a line that wraps. The row
// or the column that met, or both of the result, is lit; otherwise it is null.
export function pictureOf(parts) {
  if (!parts.length) return [];
  return [element("div",
    { class: "shapes", role: "img", "aria-label": parts.map(spoken).join(" ") },
    parts.map((part) => (typeof part === "string" ? element("span", {}, part) : drawMatrix(part))))];
}

function spoken(part) {
  return typeof part === "string" ? part : `${part.name} (${part.rows} × ${part.columns})`;
}

function drawMatrix({ name, rows, columns, row: r, column }) {
  const [wide, high] = [lengthOfSide(columns), lengthOfSide(rows)];
  const made = svgMaker(document.querySelector("svg")); // the namespace of the page's other figures
  const rect = (x, y, width, height, kind) => made("rect", { x, y, width, height, class: kind });
  const [thick, broad] = [Math.max(3, high / rows), Math.max(3, wide / columns)];
  const [down, across] = [
    r === null ? 0 : ((high - thick) * r) / Math.max(1, rows - 1),
    column === null ? 0 : ((wide - broad) * column) / Math.max(1, columns - 1)];
  const lit = r !== null && column !== null ? [rect(across, down, broad, thick, "lit number")]
    : r !== null ? [rect(0, down, wide, thick, "lit")]
      : column !== null ? [rect(across, 0, broad, high, "lit")] : [];
  const svg = made("svg", { width: wide + 2, height: high + 2, viewBox: `-1 -1 ${wide + 2} ${high + 2}` },
    rect(0, 0, wide, high, "matrix-box"), ...lit);
  return element("figure", {}, element("figcaption", {}, name), svg,
    element("small", {}, `${rows} × ${columns}`));
}
