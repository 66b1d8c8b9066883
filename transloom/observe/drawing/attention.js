// All heads of an attention together: a small map of each, and arcs from rows to the attended pieces.

import { element, svgMaker } from "./elements.js";
import { savableMatrices } from "./saving.js";
import { visible } from "./text.js";

const FAINT = 0.02; // of the full colour: what is less is not drawn
const HUES = 137; // degrees from one head's colour to the next one's: no two are near each other

// A small map for each head of an attention, as buttons; `choose` selects a head. `labels` are those of
// rows and columns.
export function smallMaps({ name }, { shape, data }, labels, full, choose) {
  const [heads, length, keys] = shape;
  const size = Math.max(2, Math.min(8, Math.floor(110 / Math.max(length, keys))));
  const map = (h) => {
    const cells = [];
    for (let n = 0; n < length * keys; n++) {
      const share = Math.min(1, data[h * length * keys + n] / full);
      if (share < FAINT) continue;
      const cell = element("i");
      cell.style.gridArea = `${Math.floor(n / keys) + 1} / ${(n % keys) + 1}`;
      cell.style.background = `rgb(var(--positive) / ${share.toFixed(2)})`;
      cells.push(cell);
    }
    const drawn = element("span", { class: "small-map" }, cells);
    drawn.style.gridTemplate = `repeat(${length}, ${size}px) / repeat(${keys}, ${size}px)`;
    return element("button", {
      type: "button", onclick: choose, "aria-label": `${name}, head ${h + 1}: show its numbers`,
    }, drawn, element("small", {}, `head ${h + 1}`));
  };
  const panel = (h) => ({
    ...labels, title: `head ${h + 1}`,
    values: labels.rows.map((_, t) =>
      data.subarray((h * length + t) * keys, (h * length + t + 1) * keys)),
  });
  const each = (one) => Array.from({ length: heads }, (_, h) => one(h));
  const figure = element("figure", {}, element("figcaption", {}, name),
    element("div", { class: "small-maps" }, each(map)));
  savableMatrices(figure, name, () => each(panel));
  return figure;
}

// Fills an SVG element: rows at the left, attended pieces at the right, and an arc for each weight in
// the colour of its head; smaller weights have fainter arcs.
export function drawArcs(svg, { shape, data }, rows, columns) {
  const [heads, length, keys] = shape;
  const [step, left, right] = [24, 120, 240];
  const made = svgMaker(svg);
  const y = (n) => 14 + n * step;
  const label = (x, anchor) => (text, n) =>
    made("text", { x, y: y(n) + 4, "text-anchor": anchor }, visible(text));
  const arcs = [];
  for (let h = 0; h < heads; h++) {
    for (let n = 0; n < length * keys; n++) {
      const weight = data[h * length * keys + n];
      if (weight < FAINT) continue;
      const aside = (h - (heads - 1) / 2) * Math.min(3, 16 / heads); // heads do not hide heads
      const [from, to] = [Math.floor(n / keys), n % keys].map((place) => y(place) + aside);
      const path = made("path", {
        d: `M${left} ${from} C${left + 50} ${from} ${right - 50} ${to} ${right} ${to}`,
        class: "arc", "stroke-opacity": weight.toFixed(2), "data-head": h,
      });
      path.style.stroke = colourOfHead(h);
      arcs.push(path);
    }
  }
  const height = y(Math.max(length, keys));
  svg.setAttribute("viewBox", `0 0 360 ${height}`);
  svg.replaceChildren(...arcs, ...Array.from(rows, label(left - 8, "end")),
    ...Array.from(columns, label(right + 8, "start")));
}

// Every weight of every head, also those that are too small for an arc.
export function tableOfArcs({ shape, data }, rows, columns) {
  const [, length, keys] = shape;
  return [["head", "row", "looks at", "weight"], ...Array.from(data, (weight, n) =>
    [Math.floor(n / keys / length) + 1, rows[Math.floor(n / keys) % length], columns[n % keys],
      weight])];
}

function colourOfHead(h) {
  return `hsl(${(210 + h * HUES) % 360} 70% 50%)`;
}

// The legend of the heads' colours.
export function legendOf(heads) {
  return Array.from({ length: heads }, (_, h) => {
    const swatch = element("i", { "aria-hidden": "true" });
    swatch.style.background = colourOfHead(h);
    return element("span", { class: "swatch" }, swatch, ` head ${h + 1}`);
  });
}
