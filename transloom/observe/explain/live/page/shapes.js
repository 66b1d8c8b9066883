// The product that made a number, as a picture: each matrix as a box as tall as it has rows and as
// wide as it has columns, with the row and the column that met, and the number that they gave.
//
//   shapesOf(model, traced, cell, switches) ─▶ [{name, rows, columns, row, column} or "·", "=", …] ─▶ SVG
//
// A matrix that enters transposed is drawn as it lies in memory first, then turned.

import { element } from "../../../drawing/elements.js";
import { NOTHING_SWITCHED } from "./forward.js";
import { tensorAt } from "./places.js";

// What was multiplied, in the order of the formula; empty where nothing was.
export function shapesOf(model, traced, { key, head, row: t, column }, switches = NOTHING_SWITCHED) {
  const path = key.split(".");
  const name = path.at(-1);
  const { width, heads } = model.config;
  const d = width / heads;
  const [rows, columns] = tensorAt(traced, key).shape.slice(-2);
  const at = (label, r, c, lit) => ({ name: label, rows: r, columns: c, row: null, column: null, ...lit });
  const made = (label) => at(label, rows, columns, { row: t, column });
  const base = path.slice(0, -1).join(".");
  const one = head === null ? "" : ` of head ${head + 1}`;
  // A learned matrix has a bias for each column.
  const product = (input, inner, weights, result) => [
    at(input, rows, inner, { row: t }), "·", at(weights, inner, columns, { column }), "+",
    at("b", 1, columns, { column }), "=", made(result)];
  if (["queries_htd", "keys_hsd", "values_hsd"].includes(name)) {
    const letter = { queries_htd: "Q", keys_hsd: "K", values_hsd: "V" }[name];
    const memory = path[3] === "cross_attention" && letter !== "Q";
    return product(memory ? "memory" : "input", width, `W${letter}${one}`, `${letter}${one}`);
  }
  if (name === "scores_hts") {
    const scores = [at(`Q${one}`, rows, d, { row: t }), "·", at("Kᵀ", d, columns, { column }),
      switches.scaledScores ? `/ √${d} =` : "=", made("scores")];
    return [at(`K${one}`, columns, d, { row: column }), "transposed: Kᵀ;", ...scores];
  }
  if (name === "mix_htd") {
    const looked = tensorAt(traced, `${base}.values_hsd`).shape[1];
    return [at(`weights${one}`, rows, looked, { row: t }), "·",
      at(`V${one}`, looked, columns, { column }), "=", made("mix")];
  }
  if (name === "inner_tf") return [...product("input", width, "W₁", "sum"), "then the activation"];
  if (name === "output_tm" && path[3] === "feed_forward") {
    return product("inner", tensorAt(traced, `${base}.inner_tf`).shape[1], "W₂", "output");
  }
  if (name === "output_tm" && /attention$/.test(path[3] ?? "")) {
    return product(`mixes of ${heads} heads`, width, "Wᴼ", "output");
  }
  if (key === "logits_tv") {
    const bias = model.weights["output_bias"] ? ["+", at("b", 1, columns, { column })] : [];
    return [at("E", columns, width, { row: column }), "transposed: Eᵀ;",
      at("h", rows, width, { row: t }), "·", at("Eᵀ", width, columns, { column }), ...bias, "=",
      made("logits")];
  }
  return [];
}

// A box's side for so many rows or columns: the more the longer, and all fit on a screen.
function lengthOfSide(count) {
  return Math.round(Math.max(16, Math.min(110, 13 * Math.log2(count + 1))));
}

// The parts of shapesOf in a line that wraps; nothing where there are none.
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
  // Of the page's other figures; no address, not even of a namespace, stands in its scripts.
  const { namespaceURI } = document.querySelector("svg");
  const svg = document.createElementNS(namespaceURI, "svg");
  const rect = (x, y, width, height, kind) => {
    const made = document.createElementNS(namespaceURI, "rect");
    Object.entries({ x, y, width, height, class: kind }).forEach(([key, value]) =>
      made.setAttribute(key, value));
    svg.append(made);
  };
  const [thick, broad] = [Math.max(3, high / rows), Math.max(3, wide / columns)];
  const [down, across] = [
    r === null ? 0 : ((high - thick) * r) / Math.max(1, rows - 1),
    column === null ? 0 : ((wide - broad) * column) / Math.max(1, columns - 1)];
  svg.setAttribute("width", wide + 2);
  svg.setAttribute("height", high + 2);
  svg.setAttribute("viewBox", `-1 -1 ${wide + 2} ${high + 2}`);
  rect(0, 0, wide, high, "matrix-box");
  if (r !== null && column === null) rect(0, down, wide, thick, "lit");
  if (column !== null && r === null) rect(across, 0, broad, high, "lit");
  if (r !== null && column !== null) rect(across, down, broad, thick, "lit number");
  return element("figure", {}, element("figcaption", {}, name), svg,
    element("small", {}, `${rows} × ${columns}`));
}
