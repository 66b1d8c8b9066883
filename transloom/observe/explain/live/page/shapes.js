// The product that made a number, for drawing/product.js:
//
//   shapesOf(model, traced, cell, switches) ─▶ [{name, rows, columns, row, column} or "·", "=", …]
//
// A matrix that enters transposed is drawn as it lies in memory first, then turned.

import { NOTHING_SWITCHED } from "./forward.js";
import { tensorAt } from "./places.js";

// What was multiplied, in the order of the formula; empty where nothing was.
export function shapesOf(model, traced, { key, head, row: t, column }, switches = NOTHING_SWITCHED) {
  const path = key.split(".");
  const name = path.at(-1);
  const { width, heads, groups, activation, positions } = model.config;
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
    const cross = path[3] === "cross_attention";
    const shared = letter === "Q" || groups === heads ? one : ` of group ${Math.floor((head * groups) / heads) + 1}`;
    const turned = positions === "rotary" && switches.positions && !cross && letter !== "V";
    return [...product(cross && letter !== "Q" ? "memory" : "input", width, `W${letter}${shared}`,
      `${letter}${one}`), ...(turned ? ["then rotated by the row's position"] : [])];
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
  if (name === "inner_tf") {
    return activation === "swiglu" ? [...product("input", width, "V", "sum"), "then times the gate"]
      : [...product("input", width, "W₁", "sum"), "then the activation"];
  }
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
