// The first screen: the text, what the model makes of it, and a compact figure of the flow: the pieces of
// the text, numbers on the arrows, the most probable piece, and the map of one head. It stays above the
// section that is shown, to which each box leads.

import { element, optionGroups } from "../../drawing/elements.js";
import { paint, shade } from "../../drawing/heat_map.js";
import { whenStill } from "../../drawing/in_view.js";
import { counted, formatNumber, formatPercent } from "../../drawing/numbers.js";
import { player } from "../../drawing/player.js";
import { savable, svgOfElement } from "../../drawing/saving.js";
import { areRightToLeft, visible, written } from "../../drawing/text.js";
import { labelsOf, nameOfAttention, tensorAt } from "../live/page/places.js";
import { meanOf } from "../live/page/tensors.js";
import { headNames, weightsOfHead } from "./maps.js";
import { addRowPlay } from "./row_play.js";
import { rowsOf } from "./trace.js";

const PIECES_IN_BOX = 8;
const NUMBERS_ON_ARROW = 3;
const MOST_OF_MAP = 36; // rows and columns of the map
const MOST_EXAMPLES = 3; // beside the page's own

export const flowOf = {
  translation: flowOfTranslation,
  continuation: flowOfContinuation,
  filling: flowOfFilling,
};

// Parts of the figure in the order of the forward pass: boxes, and rows of numbers that pass from one to
// the next.
function flowOfTranslation({ model, source, target, encoder, decoder, predictions }, step = 0) {
  return [
    tokensBox(source.texts, "encoder.ids"),
    numbers(model, "embedding", "encoder.embedding", inputOf(encoder), source.texts[0]),
    box("Encoder", `${counted(model.encoder_layers, "layer")}; every piece attends to all`,
      "encoder.1.self_attention"),
    numbers(model, "memory", "encoder.memory", encoder.output_tm, source.texts[0]),
    box("Decoder", `${counted(model.decoder_layers, "layer")}; reads the memory and`, "decoder.ids",
      excerptOf(target.texts.slice(0, step + 1))),
    numbers(model, "hidden state", "decoder.softmax", decoder.output_tm, target.texts[step], 1, step),
    outputBox("most probable next piece:", "decoder.softmax", predictions[step].best),
  ];
}

function flowOfContinuation({ model, pieces, given, stack, states_nm, sampling, predictions, chosen }, step = 0) {
  const read = given + step;
  return [
    tokensBox(pieces.texts.slice(0, read), "decoder.ids"),
    numbers(model, "embedding", "decoder.embedding", inputOf(stack), pieces.texts[0], read),
    box("Decoder", `${counted(model.layers, "layer")}; every piece attends to itself and earlier ones`,
      "decoder.1.self_attention"),
    numbers(model, "hidden state", "decoder.softmax", step ? stack.output_tm : states_nm,
      pieces.texts[read - 1], 1, step && read - 1),
    outputBox(`${sampling ? "drawn" : "most probable"} next piece:`, "decoder.softmax",
      predictions[read - 1].candidates.find(({ id }) => id === chosen.ids[step])),
  ];
}

function flowOfFilling({ model, pieces, places, stack, states_nm, predictions }) {
  const [place, ...others] = places;
  const mask = pieces.texts[place];
  return [
    tokensBox(pieces.texts, "encoder.ids", place),
    numbers(model, "embedding", "encoder.embedding", inputOf(stack), pieces.texts[0]),
    box("Encoder", `${counted(model.layers, "layer")}; every piece attends to all`,
      "encoder.1.self_attention"),
    numbers(model, "hidden state", "head.softmax", states_nm, mask),
    outputBox(`most probable piece for ${others.length ? "the first " : ""}${mask}:`, "head.softmax",
      predictions[0].best),
  ];
}

const inputOf = ({ embedding }) => embedding.normed_tm ?? embedding.sum_tm;

function tokensBox(pieces, key, keep) {
  return box("Tokens", counted(pieces.length, "piece"), key, excerptOf(pieces, keep));
}

function outputBox(about, key, { text, probability }) {
  return box("Output", about, key, [text], probability);
}

// `pieces` are those that the box reads, null for some that are left out, or with a `probability` the
// one that it predicts.
function box(name, about, key, pieces = [], probability = null) {
  const token = (piece) => (piece === null ? element("i", {}, "…") : element("bdi",
    { class: probability === null ? "token" : "token follows" }, piece));
  return flowItem(name, key, [
    element("span", {}, about), " ",
    element("span", { class: "pieces", dir: areRightToLeft(pieces) ? "rtl" : "ltr" },
      pieces.flatMap((piece) => [token(piece), " "]),
      probability === null ? [] : element("b", {}, formatPercent(probability)))]);
}

// The first numbers of a tensor's row `at`, which is that of `piece`, on the arrow to the next box. What is
// written step by step goes back.
function numbers({ limits, family }, name, key, tensor, piece, height = tensor.shape.at(-2), at = 0) {
  const row = rowsOf(tensor, null, at + 1, limits.numbers)[at];
  const full = row.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
  const item = flowItem(name, key, [
    element("span", {}, `${height} × ${tensor.shape.at(-1)}, `, element("bdi", {}, piece), ": "),
    element("span", { class: "row", dir: "ltr" }, Array.from(row.subarray(0, NUMBERS_ON_ARROW), (value) =>
      [shade(element("i", {}, formatNumber(value)), value, full), " "]), "…"),
    element("span", { class: "arrow", "aria-hidden": "true" }, "→"),
    name === "hidden state" && family !== "filling" && element("span", { class: "loop" },
      element("b", { "aria-hidden": "true" }, "▲"), "next input")]);
  item.row = [name, piece, ...row];
  return item;
}

function flowItem(name, key, about) {
  return element("li", { "data-flow": name.toLowerCase() },
    element("a", { href: `#box-${key}`, "data-box": key }, element("strong", {}, name), " ",
      element("span", { class: "about" }, about)));
}

// The first pieces, the one at `keep` and the last one, with null for those between them.
export function excerptOf(pieces, keep = 0) {
  if (pieces.length <= PIECES_IN_BOX) return pieces;
  const last = pieces.length - 1;
  const shown = [...new Set([...Array(PIECES_IN_BOX - 3).keys(), keep, last])].sort((a, b) => a - b);
  return shown.flatMap((place, n) =>
    [...(n && place > shown[n - 1] + 1 ? [null] : []), pieces[place]]);
}

const part = (name) => document.querySelector(`.first-screen [data-first="${name}"]`);

// The elements with results.
export const resultsShown = () => [part("flow"), part("made")];

export function showFirstScreen(trace) {
  const { chosen, given = 1, model: { limits } } = trace;
  const steps = player("Step of the decoder", (step) => {
    showFlow(trace, step);
    return `step ${step + 1} of ${chosen?.ids.length}`;
  });
  steps.length(Math.max(1, Math.min(chosen?.ids.length ?? 1, limits.pieces + 1 - given)));
  steps.root.hidden = !chosen?.ids.length;
  part("steps").replaceChildren(steps.root);
  part("made").textContent = written(trace.made);
  showHead(trace);
}

function showFlow(trace, step) {
  const flow = part("flow").querySelector("ol");
  const items = flowOf[trace.model.family](trace, step);
  // A link that is being clicked must stay: of items that are there, only the content changes.
  if (!flow.children.length) flow.append(...items);
  else [...flow.children].forEach((item, n) => {
    item.querySelector(".about").replaceWith(items[n].querySelector(".about"));
    item.row = items[n].row;
  });
  savable(part("flow").querySelector(":scope > figcaption"), {
    title: () => document.querySelector(".first-screen h1").textContent,
    table: () => [["", "row", "numbers"], ...[...flow.children].flatMap(({ row }) => (row ? [row] : [])),
      ...mapShown().rows.map((piece, n) => ["attention", piece, ...mapShown().values[n]])],
    svg: () => svgOfElement(part("flow")),
  });
}

const mapShown = () => part("head-map").querySelector("figure").map;

// The weights of one head, which the reader chooses from all that the page shows.
function showHead(trace) {
  const choice = part("head");
  if (!choice.options.length) {
    const places = attentionsOf(trace);
    const names = places.map((key) => nameOfAttention(key).replace("Stack layer", "Layer"));
    choice.append(...optionGroups(places.map((key, n) => [names[n], headNames(trace)
      .map((head, h) => [`${key} ${h}`, `${names[n]}, ${head}`])])));
    choice.value = sharpestHead(trace, places);
    part("head-of").hidden = false;
  }
  choice.onchange = () => showHead(trace);
  const [key, head] = choice.value.split(" ");
  const { source, target = trace.pieces, model } = trace;
  const { rows, columns } = labelsOf(`${key}.weights_hts`, trace,
    { source: source?.texts, target: target.texts });
  const causal = model.family === "continuation" || key.startsWith("decoder") && !key.includes("cross");
  const attended = Math.min(model.limits.attended, MOST_OF_MAP);
  const figure = weightsOfHead(
    { model: { ...model, limits: { ...model.limits, attended } } },
    `${choice.selectedOptions[0].textContent}: which columns each row looks at`,
    tensorAt(trace, key).weights_hts, Number(head), rows, columns, causal);
  part("head-map").replaceChildren(figure);
  paint(figure);
  addRowPlay(trace, tensorAt(trace, key), Number(head), figure);
}

// The head whose rows have the largest weights on one column, in the mean; the first row of a decoder has only
// one column to look at.
function sharpestHead(trace, places) {
  const heads = places.flatMap((key) => headNames(trace).map((_, head) => {
    const rows = rowsOf(tensorAt(trace, key).weights_hts, head, MOST_OF_MAP);
    return { value: `${key} ${head}`, sharpness: meanOf(rows.slice(1).map((row) => Math.max(...row))) };
  }));
  return heads.reduce((best, one) => (one.sharpness > best.sharpness ? one : best)).value;
}

// The places of all weights that the page shows.
function attentionsOf({ encoder, decoder, stack, model: { limits } }) {
  return Object.entries({ encoder, decoder, stack }).flatMap(([name, part]) =>
    (part?.layers ?? []).slice(0, limits.layers).flatMap((layer, n) =>
      ["self_attention", "cross_attention"].filter((attention) => layer[attention])
        .map((attention) => `${name}.layers.${n}.${attention}`)));
}

// The box in which a sentence is typed. `examples` are sentences to choose from: the page's own, then
// others, of which the shortest are shown. `changed` is called after each change.
export function typingBox([own, ...others], changed) {
  const box = part("sentence");
  box.value ||= own; // a browser may have kept what was typed before
  box.addEventListener("input", changed);
  const take = (sentence) => {
    box.value = sentence;
    box.dispatchEvent(new Event("input"));
  };
  const some = [...new Set(others)].filter((one) => one !== own).sort((one, other) => one.length - other.length);
  part("examples").replaceChildren(...[own, ...some.slice(0, MOST_EXAMPLES)].map((sentence) =>
    element("button", { type: "button", dir: "auto", onclick: () => take(sentence) }, sentence)));
  part("given").hidden = true;
  part("typing").hidden = false;
  beginKeysAt(document.querySelector(".first-screen h1"));
  const say = (...message) => part("state").replaceChildren(...message);
  let newest = null;
  // Say how long it took since `started`, once all that is on the screen is drawn.
  const sayComputed = async (started, does, note) => {
    newest = started;
    await whenStill();
    if (newest !== started) return;
    const took = Math.max(1, Math.round(performance.now() - started));
    say(`The model is in this page: ${does}. Computed in ${took} ms.`, note || "");
  };
  return { box, take, say, sayComputed };
}

// Let the first press of Tab lead to what follows an element, unless the reader is elsewhere already.
function beginKeysAt(node) {
  if (document.activeElement !== document.body || location.hash) return;
  node.tabIndex = -1;
  node.focus({ preventScroll: true });
  node.blur();
}

// Say why a page that contains a model cannot compute.
export function showFailure(error) {
  part("given").after(element("p", { role: "note" },
    `This browser cannot run the model, whose numbers this page would show (${error.message}).`));
}

// The text to which the dimmed results belong when a new text is refused.
export function staleNote(text) {
  return typeof text !== "string" ? [] : [" The dimmed results below are those of “",
    element("bdi", {}, visible(text)), "”."];
}

// Translations by another model belong to the page's own sentence alone.
export function showOthers(areShown) {
  document.querySelectorAll('.first-screen [data-first="other"]')
    .forEach((other) => { other.hidden = !areShown; });
}
