// One row of one head, computed in the map of the head: score, ÷ √d, mask, softmax, mix.

import { element } from "../../drawing/elements.js";
import { greatestIn, heatMap, paint, paintAll } from "../../drawing/heat_map.js";
import { sideBySide } from "../../drawing/parts.js";
import { isStill, player } from "../../drawing/player.js";
import { dot } from "../live/page/tensors.js";
import { chosenVectors } from "./maps.js";
import { rowsOf } from "./trace.js";

// Add the choice of a row to a map of weights, and the stages of this row: one after the other in the map, or
// side by side for a reader who wants nothing to move.
export function addRowPlay(trace, attention, head, figure) {
  const { rows, values } = figure.map;
  const recorded = rowsOf(attention.scores_hts, head).length;
  const choice = element("select", { onchange: () => showRow(choice.selectedIndex) },
    rows.slice(0, recorded).map((piece) => element("option", {}, piece)));
  const { root, length } = player("Stage", (n) => show(n));
  const stages = element("div");
  figure.after(element("p", { class: "controls" }, element("label", {}, "One row, computed: ", choice)),
    isStill() ? "" : root, stages);
  let shown = null;

  function showRow(t) {
    if (shown) values[shown.t] = shown.all[3].numbers;
    shown = { t, all: stagesOf(attention, head, t, values[t]) };
    const mix = chosenVectors(trace, `mix: the sum of weight · value, for “${rows[t]}”`,
      [rowsOf(attention.mix_htd, head)[t]], [rows[t]], attention.mix_htd.shape.at(-1));
    const each = isStill() ? shown.all.slice(0, -1).map(({ name, numbers, isShare }) =>
      heatMap({ ...figure.map, title: name, isShare, rows: [rows[t]], values: [numbers] })) : [];
    stages.replaceChildren(sideBySide(...each, mix));
    paintAll(stages);
    length(shown.all.length, shown.all.length - 1);
  }

  function show(n) {
    const { name, numbers, isShare } = shown.all[n];
    values[shown.t] = numbers;
    figure.map.full = isShare ? null : { row: shown.t, greatest: greatestIn([numbers]) };
    if (!isStill()) stages.hidden = n < shown.all.length - 1;
    paint(figure);
    return name;
  }

  choice.selectedIndex = Math.floor(recorded / 2); // a row of which a mask hides some columns
  showRow(choice.selectedIndex);
}

// What is computed of row t, of which the map shows `weights`. A mask hides later columns, whose scores are
// known if the trace has all numbers of the queries and keys.
function stagesOf({ queries_htd, keys_hsd, scores_hts }, head, t, weights) {
  const [query, keys, scores] = [rowsOf(queries_htd, head)[t], rowsOf(keys_hsd, head), rowsOf(scores_hts, head)[t]];
  const root = Math.sqrt(queries_htd.shape.at(-1));
  const products = weights.map((_, s) => (Number.isFinite(scores[s]) ? scores[s] * root
    : query.length === queries_htd.shape.at(-1) && keys[s] ? dot(query, keys[s]) : null));
  const stage = (name, numbers, isShare = false) => ({ name, numbers, isShare });
  return [
    stage("1 of 5, score: the query of the row · the key of each column", products),
    stage(`2 of 5, ÷ √${queries_htd.shape.at(-1)}`, products.map((product) => product && product / root)),
    stage("3 of 5, mask: the row sees no later column", weights.map((_, s) =>
      (Number.isFinite(scores[s]) ? scores[s] : null))),
    stage("4 of 5, softmax: shares that add up to 1", weights, true),
    stage("5 of 5, mix: each value × its share, added up", weights, true),
  ];
}
