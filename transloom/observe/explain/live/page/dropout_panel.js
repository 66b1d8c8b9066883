// Draws a mask of dropout, its effect on some numbers, and its effect on the loss.

import { element } from "../../../drawing/elements.js";
import { greatestIn, heatMap, paintAll } from "../../../drawing/heat_map.js";
import { formatCount, formatNumber, formatPercent } from "../../../drawing/numbers.js";
import { fullNameOf, labelsOf } from "./places.js";
import { rowsOf } from "../../walk/trace.js";
import { ATTENTION_WEIGHTS, dropping, nats, totalOf } from "./training.js";

const NUMBERS_DROPPED = 16; // of a row, that are shown

// `part` gives its elements. `show(forced, again)` draws a mask and returns the losses with it, or null where
// the model has no dropout: `again(drop)` is the pass of `forced` with it; both are sliced. `redraw`
// is called when somebody wants another mask.
export function dropoutPanel(part, model, settings, sentence, redraw) {
  const { dropout, attention_dropout } = settings;
  const state = { seed: 1, masks: [], forced: null };
  part("no-dropout").hidden = dropout || attention_dropout;
  part("dropout").hidden = !part("no-dropout").hidden;
  if (part("dropout").hidden) return { *show() { return null; } };
  Object.entries({ "dropout-share": formatPercent(dropout), "dropout-factor": formatNumber(1 / (1 - dropout), 3),
    "attention-dropout": formatPercent(attention_dropout) })
    .forEach(([name, text]) => { part(name).textContent = text; });
  const place = part("dropout-place");
  place.addEventListener("change", showMask);
  part("another").addEventListener("click", () => {
    state.seed += 1;
    redraw();
  });

  function* show(forced, again) {
    const { drop, masks } = dropping(settings, state.seed);
    const { losses } = yield* again(drop);
    Object.assign(state, { masks, forced });
    const all = masks.reduce((sum, { kept }) => sum + kept.length, 0);
    const left = masks.reduce((sum, { kept }) => sum + kept.reduce((n, one) => n + one, 0), 0);
    const zeros = all - left;
    const mean = (some) => nats(totalOf(some, "smoothed") / some.length);
    part("seed").textContent = `seed ${state.seed}`;
    part("dropout-effect").textContent = `This draw sets ${formatCount(zeros)} of ` +
      `${formatCount(all)} numbers to zero (${formatPercent(zeros / all)}), at ${masks.length} ` +
      `places of the pass. The mean loss of a piece is ${mean(forced.losses)} without this dropout, ` +
      `and ${mean(losses)} with it.`;
    const chosen = place.value;
    place.replaceChildren(...masks.map(({ place: name }) =>
      element("option", { value: name },
        fullNameOf(keyOf(name)) + (name.endsWith(ATTENTION_WEIGHTS) ? " of the first head" : ""))));
    if (masks.some(({ place: name }) => name === chosen)) place.value = chosen;
    showMask();
    return losses;
  }

  // The numbers before and after; where there are heads, those of the first one.
  function showMask() {
    const { before, kept, scale } = state.masks.find((mask) => mask.place === place.value);
    const [height, width] = before.shape.slice(-2);
    const { rows, columns, columnsArePieces } = labelsOf(keyOf(place.value), state.forced.traced, {
      source: sentence().pieces.source, target: state.forced.input.map((id) => model.target.pieces[id]) });
    const shown = Math.min(width, NUMBERS_DROPPED);
    const [first, second] = [before.data, before.data.map((value, i) => (kept[i] ? value * scale : -Infinity))]
      .map((data) => rowsOf({ ...before, data }, null, height, shown));
    const greatest = Math.max(...[first, second].map(greatestIn));
    const cuts = width > shown ? [`the first ${shown} of ${width} numbers`] : [];
    const map = (title, values) => heatMap({ title, values, rows, columns: columns.slice(0, shown), greatest, cuts,
      shape: [height, width], isShare: columnsArePieces });
    part("masked").replaceChildren(map("before", first),
      map(`after: 0 where it is grey, else × ${formatNumber(scale, 3)}`, second));
    paintAll(part("masked"));
  }

  return { show };
}

// The tensor at a place where numbers are dropped, such as "decoder.0.cross_attention".
function keyOf(place) {
  const [stack, n, part, ofWeights] = place.split(".");
  return n === "embedding" ? `${stack}.embedding.sum_tm`
    : `${stack}.layers.${n}.${part}.${ofWeights ? "weights_hts" : "output_tm"}`;
}
