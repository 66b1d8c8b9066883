// Heat maps: each figure has its numbers as `map`, and a canvas, on which they are painted.

import { element } from "./elements.js";
import { whenInView } from "./in_view.js";
import { formatNumber, formatPrecise, shortNumber } from "./numbers.js";
import { hex } from "./svg.js";
import { isRightToLeft } from "./text.js";

const FONT = "13px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const SMALL_FONT = FONT.replace("13px", "11px");
const LONGEST_LABEL = 150;
const NARROWEST_WITH_NUMBER = 30; // in pixels: digits of narrower cells would run into each other
const NARROWEST = 3; // of a column of a vector: wider maps scroll
const DEEPEST = 0.5; // share of the colour in a background of text, with which the contrast stays at least 4.5
const INKS = [[0, 0, 0], [255, 255, 255]]; // one of both has a contrast of at least 4.58 on any background

// A matrix by colours, which `paint` paints and cells.js reads out: `values` are rows of numbers
// with −∞ at masked places, `columns` labels or null for dimensions, `shape` that of the whole matrix.
// `isMasked`: whether later columns than the row are masked, whatever their numbers. `greatest`: the number
// of the full colour, unless it is the map's own greatest number.
export function heatMap({ title, values, rows, columns = null, isShare = false, isMasked = false,
  shape = [values.length, values[0].length], cuts = [], greatest }) {
  const small = [shape.join(" × "), cuts.filter(Boolean).join(", ")].filter(Boolean).join(" · ");
  const grid = element("div", {
    class: "grid", role: "grid", tabindex: 0, "aria-rowcount": values.length,
    "aria-colcount": values[0].length, "aria-label": `${title}, ${small}`,
  }, element("canvas", { "aria-hidden": "true" }),
  element("i", { class: "frame", "aria-hidden": "true", hidden: true }),
  // cells.js replaces this row by the current row; until then, it explains the keys.
  element("div", { class: "visited" }, element("span", { role: "row" },
    element("span", { role: "gridcell" }, "arrow keys move between cells"))));
  const figure = element("figure", { class: "map", "data-colours": isShare ? "share" : "signed" },
    element("figcaption", {}, title, " ", element("small", {}, small),
      element("small", { class: "scale" })), grid);
  figure.greatest = greatest;
  figure.map = {
    rows, columns, lines: values, // by the given rows, a page finds where a number comes from
    values: values.map((line, row) => Array.from(line, (value, column) =>
      (value === -Infinity || (isMasked && column > row) ? null : value))),
  };
  return figure;
}

function colour(name) {
  const style = getComputedStyle(document.documentElement);
  return style.getPropertyValue("--" + name).trim().split(/\s+/).map(Number);
}

const between = (from, to, share) => from.map((part, i) => part + (to[i] - part) * share);

// Relative luminance and contrast as WCAG 2.2 defines them.
function luminance(rgb) {
  const [red, green, blue] = rgb.map((part) => {
    const share = Math.round(part) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

export function readableOn(ground) {
  const contrast = (ink) => {
    const [dark, light] = [luminance(ground), luminance(ink)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  return contrast(INKS[0]) >= contrast(INKS[1]) ? INKS[0] : INKS[1];
}

export function greatestIn(lines) {
  return lines.reduce((most, line) => line.reduce((greatest, value) =>
    (Number.isFinite(value) ? Math.max(greatest, Math.abs(value)) : greatest), most), 1e-9);
}

// Give an element with a number the number's colour; the number `greatest` has the full colour.
export function shade(cell, value, greatest) {
  const share = (DEEPEST * Math.min(1, Math.abs(value) / greatest)).toFixed(3);
  cell.style.background = `rgb(var(--${value < 0 ? "negative" : "positive"}) / ${share})`;
  return cell;
}

// The number with the full colour, and a text about it. Shares range from 0 to 1.
export function scaleOf(figure) {
  if (figure.dataset.colours !== "signed") return { full: 1, said: "colours: 0 to 1" };
  const own = document.documentElement.dataset.scale !== "shared";
  const maps = own ? [figure]
    : [...figure.closest("section, .first-screen").querySelectorAll('figure.map[data-colours="signed"]')];
  const full = Math.max(...maps.map((map) => (map.greatest ??= greatestIn(map.map.values))));
  const whose = own ? "of this map alone" : "of all such maps in this section";
  return { full, said: `colours: ±${full < 0.01 ? formatPrecise(full) : formatNumber(full)}, ${whose}` };
}

function shortened(context, text, longest) {
  if (context.measureText(text).width <= longest) return text;
  const characters = [...text];
  while (characters.length > 1 && context.measureText(characters.join("") + "…").width > longest) {
    characters.pop();
  }
  return characters.join("") + "…";
}

// The width of the page's text in CSS pixels, which limits a map; folded text has no width yet.
function roomOfPage() {
  const main = document.querySelector("main");
  const { paddingLeft, paddingRight } = getComputedStyle(main);
  return Math.floor(main.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight));
}

// The layout of a map: all positions, in CSS pixels.
export function layoutOf(context, figure, page) {
  const { values, rows, columns } = figure.map;
  const signed = figure.dataset.colours === "signed";
  const room = page - (figure.closest("details") ? 28 : 2);
  context.font = FONT;
  const longest = Math.min(LONGEST_LABEL, room * 0.36);
  const rowLabels = rows.map((text) => shortened(context, text, longest));
  const columnLabels = (columns ?? []).map((text) => shortened(context, text, longest));
  const reaches = columnLabels.map((label) => context.measureText(label).width * Math.SQRT1_2); // they slant
  const count = Math.max(1, values[0].length);
  const left = Math.max(0, ...rowLabels.map((label) => context.measureText(label).width)) + 8;
  const usual = count <= 10 ? 36 : count <= 20 ? NARROWEST_WITH_NUMBER : 17;
  const fitting = Math.min((room - left - 4) / count, // with the labels that reach past the last column
    ...reaches.map((reach, column) => (room - left - 10 - reach) / (column + 0.5)));
  const square = Math.max(7, Math.min(usual, Math.floor(fitting)));
  const cell = columns
    ? { width: square, height: Math.min(Math.max(square, 15), 30) }
    : { width: Math.max(NARROWEST, Math.min(7, fitting)), height: 20 };
  // Slanted labels need 13 pixels each: if columns are narrower, only some have a label.
  const every = Math.ceil(13 / cell.width);
  const top = columns ? Math.max(0, ...reaches) + 14 : 2;
  const over = Math.max(0, ...reaches.map((reach, column) => column % every ? 0
    : reach + 8 - (count - column - 0.5) * cell.width));
  return {
    rowLabels, columnLabels, cell, left, every, top,
    width: left + count * cell.width + over + 2,
    height: top + values.length * cell.height + 2,
    writesNumbers: columns !== null && square >= NARROWEST_WITH_NUMBER && (!signed || square >= 36),
  };
}

// A cell's colour: `palette` has those of the page by name.
export function groundOf(palette, value, full) {
  return value === null || value === -Infinity ? palette.line : between(
    palette.page, palette[value < 0 ? "negative" : "positive"], Math.min(1, Math.abs(value) / full));
}

function paintLabels(context, { rowLabels, columnLabels, cell, left, top, every }, palette) {
  context.font = FONT;
  context.textBaseline = "middle";
  context.fillStyle = hex(palette.text);
  const put = (label, x, y) => {
    context.direction = isRightToLeft(label) ? "rtl" : "ltr";
    context.fillText(label, x, y);
  };
  context.textAlign = "right";
  rowLabels.forEach((label, row) => put(label, left - 6, top + (row + 0.5) * cell.height));
  context.textAlign = "left";
  columnLabels.forEach((label, column) => {
    if (column % every) return;
    context.save();
    context.translate(left + (column + 0.5) * cell.width, top - 6);
    context.rotate(-Math.PI / 4);
    put(label, 0, 0);
    context.restore();
  });
}

function paintCells(context, figure, full, palette) {
  const { cell, left, top, writesNumbers } = figure.layout;
  const { values, columns, full: own } = figure.map; // a row may have its own full colour
  const signed = figure.dataset.colours === "signed";
  context.textAlign = "center";
  context.font = SMALL_FONT;
  values.forEach((numbers, row) => numbers.forEach((value, column) => {
    const isOwn = own?.row === row;
    const ground = groundOf(palette, value, isOwn ? own.greatest : full);
    // Narrow cells begin and end at whole pixels, so that no seam shows between them.
    const x = Math.round(left + column * cell.width);
    const wide = Math.round(left + (column + 1) * cell.width) - x;
    const y = top + row * cell.height;
    context.fillStyle = hex(ground);
    // A pixel is left free between labelled cells, and between the rows of vectors.
    context.fillRect(x, y, wide - (columns ? 1 : 0), cell.height - 1);
    if (!writesNumbers || value === null) return;
    context.fillStyle = hex(readableOn(ground));
    context.fillText(shortNumber(value, signed || isOwn ? 1 : 2), x + cell.width / 2, y + cell.height / 2);
  }));
  context.strokeStyle = hex(palette.line);
  context.strokeRect(left - 0.5, top - 0.5, values[0].length * cell.width + 1,
    values.length * cell.height + 1);
  context.strokeStyle = hex(palette.text);
  context.setLineDash([3, 2]);
  figure.lit?.forEach(({ row, column }) => context.strokeRect(left + column * cell.width + 0.5,
    top + row * cell.height + 0.5, Math.max(1, cell.width - 2), cell.height - 2));
}

export const paletteHere = () => Object.fromEntries(
  ["page", "text", "line", "positive", "negative"].map((name) => [name, colour(name)]));

export function paint(figure) {
  const canvas = figure.querySelector("canvas");
  const context = canvas.getContext("2d");
  lay(figure, roomOfPage());
  const { width, height } = figure.layout;
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.ceil(width * density);
  canvas.height = Math.ceil(height * density);
  context.scale(density, density);
  paintOn(context, figure);
}

// Paint a map that has its layout on a canvas' context, or one of svg.js.
export function paintOn(context, figure) {
  const palette = paletteHere();
  paintLabels(context, figure.layout, palette);
  paintCells(context, figure, scaleOf(figure).full, palette);
}

// Give a map its layout, and its canvas the size that it has before it is painted.
function lay(figure, room) {
  const canvas = figure.querySelector("canvas");
  figure.layout = layoutOf(canvas.getContext("2d"), figure, room);
  canvas.style.width = figure.layout.width + "px";
  canvas.style.height = figure.layout.height + "px";
  figure.querySelector(".scale").textContent = scaleOf(figure).said;
}

// Paint the maps in an element, each when it comes into view. Folded maps have no layout until then.
export function paintAll(within) {
  const room = roomOfPage();
  within.querySelectorAll("figure.map").forEach((figure) => {
    if (!figure.closest("details:not([open])")) lay(figure, room);
    whenInView(figure, () => paint(figure));
  });
}
