// Heat maps: each figure has its numbers as `map`, and a canvas, on which they are painted.

import { element } from "./elements.js";
import { formatNumber, formatPrecise, shortNumber } from "./numbers.js";
import { isRightToLeft } from "./text.js";

export const FONT = "13px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const SMALL_FONT = FONT.replace("13px", "11px");
const LONGEST_LABEL = 150;
const NARROWEST_WITH_NUMBER = 30; // in pixels: digits of narrower cells would run into each other
const INKS = [[0, 0, 0], [255, 255, 255]]; // one of them has a contrast of 4.58 on any ground

// A matrix by colours, which `paint` paints and cells.js reads out: `values` are rows of numbers
// with −∞ at masked places, `columns` labels or null for dimensions, `shape` that of the whole matrix.
// `isMasked`: whether later columns than the row are masked, whatever their numbers.
export function heatMap({ title, values, rows, columns = null, isShare = false, isMasked = false,
  shape, cuts = [] }) {
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
  figure.map = {
    rows, columns, lines: values, // by the given rows, a page finds where a number comes from
    values: values.map((line, row) => Array.from(line, (value, column) =>
      (value === -Infinity || (isMasked && column > row) ? null : value))),
  };
  return figure;
}

export function colour(name) {
  const style = getComputedStyle(document.documentElement);
  return style.getPropertyValue("--" + name).trim().split(/\s+/).map(Number);
}

const css = (rgb) => `rgb(${rgb.map(Math.round).join(" ")})`;
export const between = (from, to, share) => from.map((part, i) => part + (to[i] - part) * share);

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

function greatestOf(figure) {
  figure.greatest ??= Math.max(1e-9, ...figure.map.values.flat().map(Math.abs));
  return figure.greatest;
}

// The number that has the full colour, and what is said of it. Shares go from 0 to 1.
export function scaleOf(figure) {
  if (figure.dataset.colours !== "signed") return { full: 1, said: "colours: 0 to 1" };
  const own = document.documentElement.dataset.scale !== "shared";
  const maps = own ? [figure]
    : [...figure.closest("section").querySelectorAll('figure.map[data-colours="signed"]')];
  const full = Math.max(...maps.map(greatestOf));
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

// The width that a figure may take, in CSS pixels; what is folded has none yet.
function roomFor(figure) {
  const main = document.querySelector("main");
  const { paddingLeft, paddingRight } = getComputedStyle(main);
  const room = main.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
  return Math.floor(room) - (figure.closest("details") ? 28 : 2);
}

// Where everything stands, in CSS pixels.
function layoutOf(context, figure) {
  const { values, rows, columns } = figure.map;
  const signed = figure.dataset.colours === "signed";
  const room = roomFor(figure);
  context.font = FONT;
  const width = (texts) => Math.max(0, ...texts.map((t) => context.measureText(t).width));
  const longest = Math.min(LONGEST_LABEL, room * 0.36);
  const rowLabels = rows.map((text) => shortened(context, text, longest));
  const columnLabels = (columns ?? []).map((text) => shortened(context, text, longest));
  const count = Math.max(1, values[0].length);
  const left = width(rowLabels) + 8;
  const usual = count <= 10 ? 36 : count <= 20 ? NARROWEST_WITH_NUMBER : 17;
  const fitting = (room - left - 4) / count;
  const square = Math.max(7, Math.min(usual, Math.floor(fitting)));
  const cell = columns
    ? { width: square, height: Math.min(Math.max(square, 15), 30) }
    : { width: Math.min(7, fitting), height: 20 };
  // Slanted labels need 13 pixels each: of narrower columns only some have one.
  const every = Math.ceil(13 / cell.width);
  const slant = width(columnLabels) * Math.SQRT1_2;
  const over = Math.max(0, ...columnLabels.map((label, column) => column % every ? 0
    : width([label]) * Math.SQRT1_2 + 8 - (count - column - 0.5) * cell.width));
  return {
    rowLabels, columnLabels, cell, left, every,
    top: columns ? slant + 14 : 2,
    width: left + count * cell.width + over + 2,
    height: (columns ? slant + 14 : 2) + values.length * cell.height + 2,
    writesNumbers: columns !== null && square >= NARROWEST_WITH_NUMBER && (!signed || square >= 36),
  };
}

// A cell's colour, and that of the number on it.
export function coloursOf(figure, value, full) {
  const ground = value === null ? colour("line") : between(
    colour("page"), colour(value < 0 ? "negative" : "positive"), Math.min(1, Math.abs(value) / full));
  return { ground, ink: readableOn(ground) };
}

function paintLabels(context, { rowLabels, columnLabels, cell, left, top, every }) {
  context.font = FONT;
  context.textBaseline = "middle";
  context.fillStyle = css(colour("text"));
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

function paintCells(context, figure, full) {
  const { cell, left, top, writesNumbers } = figure.layout;
  const { values, columns } = figure.map;
  const signed = figure.dataset.colours === "signed";
  context.textAlign = "center";
  context.font = SMALL_FONT;
  values.forEach((numbers, row) => numbers.forEach((value, column) => {
    const { ground, ink } = coloursOf(figure, value, full);
    // Narrow cells begin and end at whole pixels, so that no seam shows between them.
    const x = Math.round(left + column * cell.width);
    const wide = Math.round(left + (column + 1) * cell.width) - x;
    const y = top + row * cell.height;
    context.fillStyle = css(ground);
    // A pixel is left free between labelled cells, and between the rows of vectors.
    context.fillRect(x, y, wide - (columns ? 1 : 0), cell.height - 1);
    if (!writesNumbers || value === null) return;
    context.fillStyle = css(ink);
    context.fillText(shortNumber(value, signed ? 1 : 2), x + cell.width / 2, y + cell.height / 2);
  }));
  context.strokeStyle = css(colour("line"));
  context.strokeRect(left - 0.5, top - 0.5, values[0].length * cell.width + 1,
    values.length * cell.height + 1);
}

export function paint(figure) {
  const canvas = figure.querySelector("canvas");
  const context = canvas.getContext("2d");
  const layout = (figure.layout = layoutOf(context, figure));
  const { full, said } = scaleOf(figure);
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.ceil(layout.width * density);
  canvas.height = Math.ceil(layout.height * density);
  canvas.style.width = layout.width + "px";
  canvas.style.height = layout.height + "px";
  context.scale(density, density);
  paintLabels(context, layout);
  paintCells(context, figure, full);
  figure.querySelector(".scale").textContent = said;
}

export function paintAll(within) {
  within.querySelectorAll("figure.map").forEach(paint);
}
