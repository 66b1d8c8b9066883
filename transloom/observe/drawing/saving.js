// Each figure can be saved: as SVG, as PNG of twice its size, or its numbers as CSV. One piece for all
// figures, of the page's sections and of the live one:
//
//   savable(holder, {title, table, svg})       title() ─▶ text, table() ─▶ rows, svg() ─▶ text
//
// The content is computed when a reader saves it.

import { csvOf, tableOfPanels } from "./csv.js";
import { element } from "./elements.js";
import { paintOn, paletteHere } from "./heat_map.js";
import { whenInView } from "./in_view.js";
import { hex, rectShape, SvgContext, svgFile, textShape } from "./svg.js";

const COPIED = {
  text: ["fill", "font-size", "font-weight", "text-anchor"],
  shape: ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity"],
};
const MARGIN = 14; // around an element of the page
const LARGEST_CANVAS = 16384; // pixels of a side, in any browser of today

// Puts the button at the end of `holder`, unless it already has one.
export function savable(holder, { title, table, svg }) {
  if (holder.querySelector(":scope > .save")) return;
  const kinds = {
    SVG: () => download(new Blob([svg()], { type: "image/svg+xml" }), title(), "svg"),
    PNG: async () => download(await pngOf(svg()), title(), "png"),
    CSV: () => download(new Blob([csvOf(table())], { type: "text/csv" }), title(), "csv"),
  };
  holder.append(element("details", { class: "save" },
    element("summary", { "aria-label": `Save: ${title()}` }, "save"),
    Object.entries(kinds).map(([kind, save]) =>
      element("button", { type: "button", onclick: save }, kind))));
}

// A figure of matrices, with the button in its caption. `panels` gives them: [{title, rows, columns, values}].
export function savableMatrices(figure, title, panels) {
  savable(figure.querySelector("figcaption"), {
    title: () => title, table: () => tableOfPanels(panels()), svg: () => svgOfElement(figure) });
}

function savableHeatMap(figure) {
  const title = figure.querySelector("figcaption").firstChild.textContent.trim();
  savableMatrices(figure, `${headingOf(figure)}: ${title}`, () => [figure.map]);
}

// The candidates of a step.
function savableBars(table) {
  const holder = element("div", { class: "saved" });
  table.after(holder);
  savable(holder, {
    title: () => headingOf(table),
    table: () => [["piece", "probability", "logit"],
      ...table.candidates.map(({ text, probability, logit }) => [text, probability, logit])],
    svg: () => svgOfElement(table),
  });
}

// The model's figure: the wide one, and all its boxes, layer by layer.
function savableBlueprint(holder) {
  const svg = holder.closest("section").querySelector("svg.blueprint.wide");
  savable(holder, {
    title: () => svg.querySelector("title").textContent,
    table: () => JSON.parse(holder.dataset.boxes),
    svg: () => standalone(svg),
  });
}

// Makes figures of a section savable that have no button yet, each when it comes into view.
export function makeSavable(section) {
  const kinds = { "figure.map": savableHeatMap, "table.bars": savableBars, "[data-boxes]": savableBlueprint };
  Object.entries(kinds).forEach(([kind, make]) => section.querySelectorAll(kind).forEach((figure) => {
    if (!figure.isSavable) whenInView(figure.querySelector("figcaption") ?? figure, () => make(figure));
    figure.isSavable = true;
  }));
}

// An SVG of the page as a separate file, with the properties from the page's style as attributes.
export function standalone(svg) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg, copy].map((root) => [...root.querySelectorAll("*")]);
  from.forEach((element, n) => {
    const kinds = { text: "text", path: "shape", rect: "shape", circle: "shape",
      polyline: "shape", polygon: "shape" };
    const style = getComputedStyle(element);
    for (const name of COPIED[kinds[element.localName]] ?? []) {
      to[n].setAttribute(name, style.getPropertyValue(name));
    }
    for (const { name } of [...to[n].attributes]) {
      if (/^(class|style|tabindex|role|href|data-.*|aria-.*|id)$/.test(name)) {
        to[n].removeAttribute(name);
      }
    }
  });
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const inside = new XMLSerializer().serializeToString(copy)
    .replace(/^<svg[^>]*>/, "").replace(/<\/svg>$/, "").replace(/<(\/?)a(?=[ >])/g, "<$1g");
  return svgFile({ width, height }, paletteHere(), inside);
}

// Resolves to a PNG of twice the size, or as large as a canvas can be.
async function pngOf(svg) {
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
  await image.decode();
  const scale = Math.min(2, LARGEST_CANVAS / Math.max(image.width, image.height));
  const canvas = element("canvas", { width: Math.ceil(image.width * scale),
    height: Math.ceil(image.height * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function download(blob, title, ending) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: `${fileName(title)}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

// Letters and digits of all scripts, and hyphens.
function fileName(title) {
  return title.replace(/[^\p{L}\p{M}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 100) || "figure";
}

// An element as it is drawn now, including hidden scrolled parts: backgrounds, borders, lines of text, maps.
export function svgOfElement(root) {
  const drawn = [root, ...root.querySelectorAll("*")].filter((one) =>
    one.checkVisibility({ visibilityProperty: true }) && !one.closest(".save, .controls, .visited, .origin"));
  const boxes = drawn.map((one) => one.getBoundingClientRect()).filter(({ width, height }) => width && height);
  const [left, top] = ["left", "top"].map((side) => Math.min(...boxes.map((box) => box[side])) - MARGIN);
  const [right, bottom] = ["right", "bottom"].map((side) => Math.max(...boxes.map((box) => box[side])) + MARGIN);
  const frame = { left, top, width: right - left, height: bottom - top };
  const inside = drawn.map((one) => shapeOf(one, frame) + [...one.childNodes]
      .filter(({ nodeType }) => nodeType === Node.TEXT_NODE).map((text) => linesOf(text, frame)).join(""));
  return svgFile(frame, paletteHere(), inside.join(""));
}

function shapeOf(one, frame) {
  const { left, top, width, height } = one.getBoundingClientRect();
  const [x, y] = [left - frame.left, top - frame.top];
  if (one.localName === "canvas") {
    const context = new SvgContext();
    paintOn(context, one.closest("figure"));
    return `<g transform="translate(${x} ${y})">${context.shapes.join("")}</g>`;
  }
  const { backgroundColor, borderTopWidth, borderTopColor, borderTopLeftRadius } = getComputedStyle(one);
  const [border, ground] = [parseFloat(borderTopWidth), paintOf(backgroundColor)];
  if (!border && !ground.opacity) return "";
  return rectShape([x, y, width, height], { rx: parseFloat(borderTopLeftRadius), ...painted("fill", ground),
    ...painted("stroke", paintOf(borderTopColor)), "stroke-width": border });
}

// A text node; each of its lines becomes a text element.
function linesOf(node, frame) {
  const { color, fontSize, fontWeight, direction } = getComputedStyle(node.parentElement);
  const range = document.createRange();
  const lines = [];
  let end = 0;
  for (const letter of node.data) { // of one or two units
    range.setStart(node, end);
    range.setEnd(node, (end += letter.length));
    const { left, right, top, bottom, width } = range.getBoundingClientRect();
    if (!width) continue;
    if (!lines.length || Math.abs(lines.at(-1).top - top) >= 2) lines.push({ text: "", left, right, top, bottom });
    const line = lines.at(-1);
    line.text += letter;
    line.left = Math.min(line.left, left);
    line.right = Math.max(line.right, right);
  }
  const size = parseFloat(fontSize);
  return lines.map(({ text, left, right, top, bottom }) => textShape(text,
    (direction === "rtl" ? right : left) - frame.left, (top + bottom) / 2 - frame.top + 0.35 * size,
    hex(paintOf(color).rgb), { "font-size": size, "font-weight": fontWeight, direction })).join("");
}

function paintOf(colour) {
  const [red, green, blue, opacity = 1] = colour.match(/[\d.]+/g).map(Number);
  return { rgb: [red, green, blue], opacity };
}

function painted(name, { rgb, opacity }) {
  return { [name]: hex(rgb), [`${name}-opacity`]: opacity };
}

function headingOf(part) {
  return part.closest("section, .first-screen").querySelector("h1").textContent;
}
