// The parts of which sections consist, as elements: paragraphs, tables, bars, pieces, heat maps.

import { element } from "./elements.js";
import { formatCount, formatNumber, formatPercent } from "./numbers.js";
import { areRightToLeft, visible } from "./text.js";

// The children of a sentence: each quotation keeps its own writing direction.
export function quoting(text) {
  return text.split(/“([^”]*)”/).map((part, n) =>
    n % 2 ? ["“", element("bdi", {}, part), "”"] : part);
}

export const text = (...sentences) => element("p", {}, quoting(sentences.join(" ")));

// A heading or fold may have a key, which is unique in its section: links lead to it.
export const heading = (title, key = null) =>
  element("h2", { class: "part", "data-key": key }, quoting(title));

export const sideBySide = (...parts) => element("div", { class: "side-by-side" }, parts);

export const fold = (title, parts, key = null) =>
  element("details", { "data-key": key }, element("summary", {}, quoting(title)), parts);

// A link to the part of the page that shows a box of the model's figure.
export const boxLink = (title, box) => link(title, `box-${box}`);

export const link = (title, fragment) =>
  element("p", {}, element("a", { href: `#${fragment}` }, title));

// Pieces in reading order, and the one that follows them. `newest`: the last one is new. Each piece
// is isolated, as ▁ has no direction.
export function tokens(label, texts, { newest = false, follows = null } = {}) {
  const turned = areRightToLeft(texts);
  const shown = texts.map((piece, n) => element("bdi",
    { class: newest && n === texts.length - 1 ? "token new" : "token" }, piece));
  const next = follows === null ? [] : [element("i", {}, turned ? "←" : "→"),
    element("bdi", { class: "token follows" }, follows)];
  return element("div", { class: "tokens" }, element("span", { class: "label" }, label),
    element("div", { class: "row", dir: turned ? "rtl" : null }, shown, next));
}

export function table(header, rows, marked = null) {
  return stepsTable(header, rows.map((cells, n) => element("tr", { class: n === marked ? "marked" : null },
    cells.map((cell) => element("td", {}, element("bdi", {}, cell))))), null, null);
}

// A table whose rows are elements, under titles. `kind` and `captionKind`: classes of it and of its caption.
export function stepsTable(titles, rows, caption = null, kind = "steps", captionKind = null) {
  return element("table", { class: kind }, caption && element("caption", { class: captionKind }, caption),
    element("thead", {}, element("tr", {},
      titles.map((title) => element("th", { scope: "col" }, title)))),
    element("tbody", {}, rows));
}

// A row of a table: a label such as the number of a step, and cells.
export const labelled = (label, cells, kind = null) =>
  element("tr", { class: kind }, element("th", { scope: "row", dir: "auto" }, label), cells);

export const cell = (...content) => element("td", { dir: "auto" }, ...content);

export const pieceText = (piece) => element("b", { dir: "auto" }, visible(piece));

// Candidates of a step, each with its probability, of which at most one is the piece `chosen`.
export const candidatesCell = (candidates, chosen = null) => cell(candidates.map(({ piece, probability }) => {
  const shown = element("span", { class: piece === chosen ? "candidate chosen" : "candidate" },
    pieceText(piece), ` ${formatPercent(probability)}`);
  shown.style.setProperty("--share", `${100 * probability}%`);
  return shown;
}));

// The most probable piece of a layer, and `other` if a different piece follows.
export function lensCell(piece, probability, other) {
  return element("td", { class: other === null ? "agrees" : null }, pieceText(piece),
    ` ${formatPercent(probability)}`, other === null ? null : element("small", {}, other));
}

export function idsTable({ ids, texts }) {
  return table(["position", "piece", "id"], ids.map((id, n) => [n, texts[n], id]));
}

// Candidates of a step as bars.
export function bars(candidates, chosen) {
  const line = ({ id, text: piece, logit, probability }) => {
    const bar = element("span");
    bar.style.width = `${100 * probability}%`;
    return element("tr",
      { class: id === chosen ? "chosen" : null, "data-probability": probability.toFixed(6) },
      element("td", {}, element("bdi", {}, piece)), element("td", {}, formatPercent(probability)),
      element("td", { class: "bar" }, bar), element("td", {}, formatNumber(logit)));
  };
  const titles = [["th", "piece"], ["th", "probability"], ["td", ""], ["th", "logit"]];
  return Object.assign(element("table", { class: "bars" },
    element("thead", {}, element("tr", {}, titles.map(([tag, title]) => element(tag, {}, title)))),
    element("tbody", {}, candidates.map(line))), { candidates });
}

// The total probability of the pieces that are not candidates.
export function shareOfOthers({ vocabulary_size }, candidates) {
  const sum = candidates.reduce((total, { probability }) => total + probability, 0);
  return `The other ${formatCount(vocabulary_size - candidates.length)} pieces share ` +
    `${formatPercent(Math.max(0, 1 - sum))}.`;
}
