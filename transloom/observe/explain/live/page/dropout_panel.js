// Draws a mask of dropout, what it makes of some numbers, and what it does to the loss.

import { element } from "../../../drawing/elements.js";
import { greatestIn, heatMap, paintAll } from "../../../drawing/heat_map.js";
import { formatCount, formatNumber, formatPercent } from "../../../drawing/numbers.js";
import { fullNameOf, labelsOf } from "./places.js";
import { ATTENTION_WEIGHTS, dropping, nats, totalOf } from "./training.js";

const NUMBERS_DROPPED = 16; // of a row, that are shown

// `root` holds it. `show(forced, again)` draws a mask and returns the losses with it, or null where
// the model has no dropout: `again(drop)` is the pass of `forced` with it; both are sliced. `redraw`
// is called when somebody wants another mask.
export function dropoutPanel(model, settings, sentence, redraw) {
  const { dropout, attention_dropout } = settings;
  const state = { seed: 1, masks: [], place: null, forced: null };
  const root = element("div", {}, element("h3", {}, "Dropout"));
  if (!dropout && !attention_dropout) {
    root.append(element("p", {}, "This model was trained without dropout."));
    return { root, *show() { return null; } };
  }
  const seed = element("output", {});
  const effect = element("p", {});
  const masked = element("div", { class: "side-by-side" });
  const place = element("select", { onchange: () => {
    state.place = place.value;
    showMask();
  } });
  const another = element("button", { type: "button", onclick: () => {
    state.seed += 1;
    redraw();
  } }, "Draw again");
  root.append(
    element("p", {}, `Each training pass sets a random ${formatPercent(dropout)} of the numbers in the ` +
      "embeddings and in the output of each sub-layer to zero. The other numbers are multiplied " +
      `by 1/(1 − p) = ${formatNumber(1 / (1 - dropout), 3)}, so that sums stay the same on average. ` +
      "Translation uses no dropout." +
      (attention_dropout ? ` Attention weights have a dropout of ${formatPercent(attention_dropout)}.` : "")),
    element("p", {}, another, " ", seed,
      element("small", {}, " (random numbers of this page, which differ from those of torch)")),
    effect, element("p", {}, element("label", {}, "Mask of ", place)), masked);

  function* show(forced, again) {
    const { drop, masks } = dropping(settings, state.seed);
    const { losses } = yield* again(drop);
    Object.assign(state, { masks, forced });
    const all = masks.reduce((sum, { kept }) => sum + kept.length, 0);
    const left = masks.reduce((sum, { kept }) => sum + kept.reduce((n, one) => n + one, 0), 0);
    const zeros = all - left;
    const mean = (some) => nats(totalOf(some, "smoothed") / some.length);
    seed.textContent = `seed ${state.seed}`;
    effect.textContent = `This draw sets ${formatCount(zeros)} of ` +
      `${formatCount(all)} numbers to zero (${formatPercent(zeros / all)}), at ${masks.length} ` +
      `places of the pass. The mean loss of a piece is ${mean(forced.losses)} without this dropout, ` +
      `and ${mean(losses)} with it.`;
    place.replaceChildren(...masks.map(({ place: name }) =>
      element("option", { value: name },
        fullNameOf(keyOf(name)) + (name.endsWith(ATTENTION_WEIGHTS) ? " of the first head" : ""))));
    if (masks.some(({ place: name }) => name === state.place)) place.value = state.place;
    state.place = place.value;
    showMask();
    return losses;
  }

  // The numbers before and after; where there are heads, those of the first one.
  function showMask() {
    const { before, kept, scale } = state.masks.find((mask) => mask.place === state.place);
    const [height, width] = before.shape.slice(-2);
    const { rows, columns, columnsArePieces } = labelsOf(keyOf(state.place), state.forced.traced, {
      source: sentence().pieces.source, target: state.forced.input.map((id) => model.target.pieces[id]) });
    const shown = Math.min(width, NUMBERS_DROPPED);
    const numbers = (numberAt) => Array.from({ length: height }, (_, r) =>
      Float32Array.from({ length: shown }, (_, c) => numberAt(r * width + c)));
    const first = numbers((i) => before.data[i]);
    const second = numbers((i) => (kept[i] ? before.data[i] * scale : -Infinity));
    const greatest = Math.max(...[first, second].map(greatestIn));
    const cuts = width > shown ? [`the first ${shown} of ${width} numbers`] : [];
    const map = (title, values) => heatMap({ title, values, rows, columns: columns.slice(0, shown), greatest, cuts,
      shape: [height, width], isShare: columnsArePieces });
    masked.replaceChildren(map("before", first),
      map(`after: 0 where it is grey, else × ${formatNumber(scale, 3)}`, second));
    paintAll(masked);
  }

  return { root, show };
}

// The tensor at a place where numbers are dropped, such as "decoder.0.cross_attention".
function keyOf(place) {
  const [stack, n, part, ofWeights] = place.split(".");
  return n === "embedding" ? `${stack}.embedding.sum_tm`
    : `${stack}.layers.${n}.${part}.${ofWeights ? "weights_hts" : "output_tm"}`;
}
