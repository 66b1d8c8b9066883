// A table of the terms of a sum: those with the largest shares, those that are marked, and the sum of
// the others.
//
// A term is {place, a, b, factor, value}: the number a, its factor b (or null), the places of both (or
// null), and the value of the product.

import { element } from "./elements.js";
import { formatPrecise } from "./numbers.js";
import { stepsTable } from "./parts.js";

const MOST_TERMS = 12;

// The rows of a number's table: [{term or label, value, mark}]. The number itself is among them: the
// term `isAsked`, or the last row. `wasShown`: whether a term's number was shown before.
export function rowsOfTerms({ terms, added, divisor, value }, wasShown = () => false) {
  const total = (some) => some.reduce((sum, one) => sum + one.value, 0);
  const markOf = (term) => (term.isAsked ? "asked" : wasShown(term) ? "shown before" : null);
  const order = terms.map((term, n) => ({ term, n, value: term.value, mark: markOf(term) }))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value) || a.n - b.n);
  const isDrawn = ({ mark }, place) => mark !== null || place < MOST_TERMS;
  const rest = order.filter((line, place) => !isDrawn(line, place));
  const sum = total(order) + (added ?? 0);
  const isShare = terms.some(({ isAsked }) => isAsked);
  const isLast = !isShare && formatPrecise(sum) === formatPrecise(value);
  return [
    ...order.filter(isDrawn),
    ...(rest.length ? [{ label: `${rest.length} smaller terms`, value: total(rest) }] : []),
    ...(added === null ? [] : [{ label: "+ bias", value: added }]),
    ...(terms.length && !isLast ? [{ label: "sum", value: sum }] : []),
    ...(divisor ? [{ label: `÷ √${divisor}`, value: Math.sqrt(divisor) }] : []),
    ...(isShare ? [] : [{ label: "this number", value, mark: "asked" }]),
  ];
}

// Each number with a place is a button, which calls `ask` with the place. `names`: of the factors.
export function termsTable(rows, nameOf, ask, names = ["number", "factor"]) {
  const multiplied = rows.some(({ term }) => term && term.b !== null);
  const number = (value, place) => (place ? element("button", { type: "button", class: "number",
    "aria-label": `${formatPrecise(value)}: show where this number comes from`,
    onclick: () => ask(place) }, formatPrecise(value)) : formatPrecise(value));
  const line = ({ term, label, value, mark }) => element("tr",
    { class: mark ? "marked" : label ? "sum" : null, "aria-current": mark ? "true" : null },
    element("th", { scope: "row", dir: "auto" }, label ?? nameOf(term),
      mark && term ? element("small", {}, ` (${mark})`) : null),
    element("td", {}, term ? number(term.a, term.place) : null),
    multiplied ? element("td", {}, term ? ["× ", number(term.b, term.factor)] : null) : null,
    element("td", {}, formatPrecise(value)));
  const titles = ["term", ...(multiplied ? names : names.slice(0, 1)), "result"];
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Terms" },
    stepsTable(titles, rows.map(line), null, null));
}
