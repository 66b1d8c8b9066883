// Builds the page's elements. Text from data becomes a text node here, never markup. Characters
// that could control or hide text are shown as escapes, as in foundation/untrusted_text.py.

const CONTROLS = "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f";
const HIDDEN =
  "\\xad\\u061c\\u115f\\u1160\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164" +
  "\\u{d800}-\\u{dfff}\\ufeff\\uffa0\\ufff0-\\ufffb\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}" +
  "\\u{e0000}-\\u{e00ff}\\u{e01f0}-\\u{e0fff}";
const SELECTORS = "\\u180b-\\u180d\\u180f\\ufe00-\\ufe0f\\u{e0100}-\\u{e01ef}";
const JOINERS = "\\u200c\\u200d";
const ODD = new RegExp(`[${CONTROLS}${HIDDEN}${JOINERS}${SELECTORS}]`, "gu");
const TAKES_JOINER = new RegExp(`(?![${HIDDEN}])[\\u0590-\\u1fff\\u2070-\\u{10ffff}]$`, "u");
const TAKES_SELECTOR = new RegExp(`[^\\s${CONTROLS}${HIDDEN}${JOINERS}${SELECTORS}]$`, "u");
const JOINER = new RegExp(`^[${JOINERS}]`, "u");
const SELECTOR = new RegExp(`^[${SELECTORS}]`, "u");

// A text with escapes such as \x1b and \u202e for characters that could control or hide text.
export function visible(text) {
  return String(text).replace(ODD, (odd, place, whole) => {
    const before = whole.slice(Math.max(0, place - 2), place);
    if (JOINER.test(odd) && TAKES_JOINER.test(before)) return odd;
    if (SELECTOR.test(odd) && TAKES_SELECTOR.test(before)) return odd;
    const code = odd.codePointAt(0);
    if (code === 13) return "\\r";
    if (code < 256) return "\\x" + code.toString(16).padStart(2, "0");
    if (code < 65536) return "\\u" + code.toString(16).padStart(4, "0");
    return "\\U" + code.toString(16).padStart(8, "0");
  });
}

// An element. Attributes that are functions listen to the event of that name; true and false set or
// omit an attribute; children are elements, texts, or nothing.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, visible(value));
    }
  }
  made.append(...nodes(children));
  return made;
}

// Replaces all children of an element.
export function fill(parent, ...children) {
  parent.replaceChildren(...nodes(children));
  return parent;
}

// Sets an element's text if it differs, so that a screen reader announces changes only.
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

// A table with a caption. A cell is a text or an element; numbers are aligned right. `texts` has
// the indexes of columns that hold texts of any length, even if they look like numbers.
export function table(caption, header, rows, { quiet = false, texts = [] } = {}) {
  const cell = (value, column) => {
    const isNumber = typeof value === "string" && /^[−-]?[\d.,]+(e[−\d]+)?$/.test(value);
    return element("td", { class: texts.includes(column) ? "text" : isNumber || isTime(value) ? "number" : null }, value ?? "");
  };
  return element("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": caption },
    element("table", { class: "plain" },
      element("caption", { class: quiet ? "unseen" : null }, caption),
      element("thead", {}, element("tr", {},
        ...header.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell))))));
}

function isTime(value) {
  return typeof value === "string" && /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(value);
}

function nodes(children) {
  return children.flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(visible(child))));
}
