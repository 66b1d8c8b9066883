// Builds the page's elements. Text from data becomes a text node, never markup: see drawing/elements.js.

import { element, nodes } from "./drawing/elements.js";
import { stepsTable } from "./drawing/parts.js";
import { visible } from "./drawing/text.js";

// Replaces all children of an element.
export function fill(parent, ...children) {
  parent.replaceChildren(...nodes(children));
  return parent;
}

export const quiet = (text) => element("p", { class: "quiet" }, text);

// Sets an element's text if it differs, so that a screen reader announces changes only.
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

// A bar of which a share is filled.
export function barOf(share, kind = "done") {
  const filled = element("i", {});
  filled.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return element("span", { class: kind }, filled);
}

// Facts as pairs [name, value]; those without a value are left out.
export const factsList = (pairs) => element("dl", { class: "facts" }, pairs.filter(([, value]) => value).map(
  ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));

// A table with a caption. A cell is a text or an element; numbers are aligned right. `texts` has
// the indexes of columns that hold texts of any length, even if they look like numbers. A `tall` table scrolls.
export function table(caption, header, rows, { quiet = false, texts = [], tall = false } = {}) {
  const cell = (value, column) => {
    const isNumber = typeof value === "string" && /^[−-]?[\d.,]+(e[−\d]+)?$/.test(value);
    return element("td", { class: texts.includes(column) ? "text" : isNumber || isTime(value) ? "number" : null }, value ?? "");
  };
  return element("div", { class: tall ? "scrolls tall" : "scrolls", tabindex: "0", role: "region", "aria-label": caption },
    stepsTable(header, rows.map((row) => element("tr", {}, ...row.map(cell))), caption, "plain", quiet ? "unseen" : null));
}

function isTime(value) {
  return typeof value === "string" && /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(value);
}
