// All heads of an attention together: a small map of each.

import { element } from "./elements.js";
import { savableMatrices } from "./saving.js";

const FAINT = 0.02; // of the full colour: what is less is not drawn

// A small map for each head of an attention, as buttons: `choose` is called with nothing. `labels`
// are those of rows and columns.
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
  const caption = element("figcaption", {}, name);
  const panel = (h) => ({
    ...labels, title: `head ${h + 1}`, signed: false, full,
    values: labels.rows.map((_, t) =>
      data.subarray((h * length + t) * keys, (h * length + t + 1) * keys)),
  });
  const each = (one) => Array.from({ length: heads }, (_, h) => one(h));
  savableMatrices(caption, name, () => each(panel));
  return element("figure", {}, caption, element("div", { class: "small-maps" }, each(map)));
}
