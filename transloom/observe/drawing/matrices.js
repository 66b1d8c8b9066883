// Matrices as an SVG file that stands alone: its colours are in it, and it asks for no other file.
//
//   svgOfPanels(title, panels, palette, measure) ─▶ text
//
// A panel is {title, rows, columns, values, signed, full}: `full` is the number of the full colour,
// signed maps have one colour for negative numbers and one for positive ones; a value of null or −∞
// is masked; without columns they are dimensions, and have no labels. `palette` has colours [r, g, b]
// by name, `measure` gives the width of a text in pixels.

import { groundOf, readableOn } from "./heat_map.js";
import { formatNumber } from "./numbers.js";

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
const SAVED = {
  font: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
  row: 22, gap: 28, margin: 14, widest: 1400, longest: 160,
};

export function svgOfPanels(title, panels, palette, measure) {
  let [x, y, lineHeight, widest] = [SAVED.margin, 40, 0, measure(title) * 1.2];
  const drawn = panels.map((panel) => {
    const layout = layoutOfPanel(panel, measure);
    if (x > SAVED.margin && x + layout.width > SAVED.widest) {
      [x, y, lineHeight] = [SAVED.margin, y + lineHeight + SAVED.gap, 0];
    }
    const shapes = panelShapes(panel, layout, palette);
    const text = `<g transform="translate(${tidy(x)} ${tidy(y)})">${shapes}</g>`;
    x += layout.width + SAVED.gap;
    widest = Math.max(widest, x - SAVED.gap);
    lineHeight = Math.max(lineHeight, layout.height);
    return text;
  });
  const size = { width: Math.ceil(widest + SAVED.margin), height: y + lineHeight + SAVED.margin };
  const heading = textShape(title, SAVED.margin, 24, palette.text, { "font-weight": 600 });
  return svgFile(size, palette, heading + drawn.join(""));
}

// A whole file, with the ground of the page.
export function svgFile({ width, height }, palette, inside) {
  const [wide, high] = [tidy(width), tidy(height)];
  return `<svg xmlns="${SVG_NAMESPACE}" width="${wide}" height="${high}" ` +
    `viewBox="0 0 ${wide} ${high}" font-family="${SAVED.font}" font-size="13">` +
    `<rect width="${wide}" height="${high}" fill="${hex(palette.page)}"/>${inside}</svg>\n`;
}

function layoutOfPanel({ title, rows, columns, values, signed }, measure) {
  const count = Math.max(1, values[0]?.length ?? 0);
  const cell = count <= 24 ? (signed ? 48 : 38) : count <= 64 ? 16 : 8;
  const labels = (texts) => texts.map((text) => cutText(text, measure));
  const [rowLabels, columnLabels] = [labels(rows), labels(columns ?? [])];
  const longest = (texts) => Math.max(0, ...texts.map(measure));
  const slanted = longest(columnLabels) * Math.SQRT1_2;
  const [left, top] = [longest(rowLabels) + 8, 24 + (columns ? slanted + 8 : 0)];
  return {
    cell, left, top, rowLabels, columnLabels, every: Math.ceil(13 / cell), writes: count <= 24,
    width: Math.max(left + count * cell + (columns ? slanted : 0), measure(title)),
    height: top + values.length * SAVED.row,
  };
}

function panelShapes({ title, values, full }, layout, palette) {
  const { cell, left, top, rowLabels, columnLabels, every, writes } = layout;
  const shapes = [textShape(title, 0, 12, palette.text, { "font-weight": 600 })];
  rowLabels.forEach((label, r) => shapes.push(textShape(
    label, left - 6, top + (r + 0.5) * SAVED.row + 4, palette.text, { "text-anchor": "end" })));
  columnLabels.forEach((label, c) => {
    if (c % every) return;
    const [x, y] = [left + (c + 0.5) * cell, top - 6].map(tidy);
    shapes.push(textShape(label, x, y, palette.text, { transform: `rotate(-45 ${x} ${y})` }));
  });
  values.forEach((line, r) => Array.from(line).forEach((value, c) => {
    const ground = groundOf(palette, value, full);
    const [x, y] = [left + c * cell, top + r * SAVED.row].map(tidy);
    shapes.push(`<rect x="${x}" y="${y}" width="${cell}" height="${SAVED.row - 1}" ` +
      `fill="${hex(ground)}"/>`);
    if (!writes || ground === palette.line) return;
    shapes.push(textShape(formatNumber(value), x + cell / 2, y + 15, readableOn(ground),
      { "text-anchor": "middle", "font-size": 11 }));
  }));
  return shapes.join("");
}

export function textShape(text, x, y, colour, attributes = {}) {
  const more = Object.entries(attributes).map(([name, value]) => ` ${name}="${value}"`).join("");
  return `<text x="${tidy(x)}" y="${tidy(y)}" fill="${hex(colour)}"${more}>${markupOf(text)}</text>`;
}

function cutText(text, measure) {
  if (measure(text) <= SAVED.longest) return text;
  const letters = [...text];
  while (letters.length > 1 && measure(letters.join("") + "…") > SAVED.longest) letters.pop();
  return letters.join("") + "…";
}

// A text between tags; what XML has no character for is left out.
function markupOf(text) {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "")
    .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// #rrggbb, which all programs read.
export function hex(rgb) {
  return "#" + rgb.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");
}

function tidy(pixels) {
  return Math.round(pixels * 10) / 10;
}
