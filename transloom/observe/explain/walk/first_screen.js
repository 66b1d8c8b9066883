// The first screen: the text, what the model makes of it, and a compact figure of the flow, with the pieces
// of the text and the most probable piece. Each box leads to the section with its numbers.

import { element } from "../../drawing/elements.js";
import { counted, formatPercent } from "../../drawing/numbers.js";
import { areRightToLeft, visible } from "../../drawing/text.js";

const PIECES_IN_BOX = 8;
const MOST_EXAMPLES = 3; // beside the page's own
const NOTHING = "(nothing)"; // replaces an empty text

export const flowOf = {
  translation: flowOfTranslation,
  continuation: flowOfContinuation,
  filling: flowOfFilling,
};

function flowOfTranslation(trace) {
  const { encoder_layers, decoder_layers, form } = trace.model;
  const pieces = trace.source.texts;
  const [start] = trace.target.texts;
  return [
    tokensBox(pieces, "encoder.ids"),
    box("Encoder", `${counted(encoder_layers, "layer")}; every piece attends to all`,
      "encoder.1.self_attention"),
    box("Memory", `${counted(pieces.length, "row")} of ${form.width} numbers, one for each piece`,
      "encoder.memory"),
    box("Decoder", `${counted(decoder_layers, "layer")}; reads the memory and`, "decoder.ids", [start]),
    outputBox("most probable next piece:", "decoder.softmax", trace.predictions[0].best),
  ];
}

function flowOfContinuation(trace) {
  return [
    tokensBox(trace.pieces.texts.slice(0, trace.given), "decoder.ids"),
    box("Decoder", `${counted(trace.model.layers, "layer")}; every piece attends to itself and earlier ` +
      "ones", "decoder.1.self_attention"),
    outputBox(`${trace.sampling ? "drawn" : "most probable"} next piece:`, "decoder.softmax",
      trace.predictions[trace.given - 1].candidates.find(({ id }) => id === trace.chosen.ids[0])),
  ];
}

function flowOfFilling(trace) {
  const [place, ...others] = trace.places;
  const mask = trace.pieces.texts[place];
  return [
    tokensBox(trace.pieces.texts, "encoder.ids", place),
    box("Encoder", `${counted(trace.model.layers, "layer")}; every piece attends to all`,
      "encoder.1.self_attention"),
    outputBox(`most probable piece for ${others.length ? "the first " : ""}${mask}:`, "head.softmax",
      trace.predictions[0].best),
  ];
}

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
  const direction = areRightToLeft(pieces) ? "rtl" : "ltr";
  return element("li", { "data-flow": name.toLowerCase() },
    element("a", { href: `#box-${key}`, "data-box": key }, element("strong", {}, name), " ",
      element("span", { class: "about" }, element("span", {}, about), " ",
        element("span", { class: "pieces", dir: direction },
          pieces.flatMap((piece) => [token(piece), " "]),
          probability === null ? [] : element("b", {}, formatPercent(probability))))));
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
  const flow = part("flow").querySelector("ol");
  const boxes = flowOf[trace.model.family](trace);
  // A link that is being clicked must stay: of boxes that are there, only the content changes.
  if (!flow.children.length) flow.append(...boxes);
  else [...flow.querySelectorAll(".about")].forEach((about, n) =>
    about.replaceWith(boxes[n].querySelector(".about")));
  part("made").textContent = visible(trace.made) || NOTHING;
}

// The box of the first screen, in which a sentence is typed, beside that of the live section: both
// have the same text. `examples` are sentences to choose from: the page's own, then others, of which
// the shortest are shown.
export function typingBox(typed, examples) {
  const box = part("sentence");
  box.value = typed.value;
  box.addEventListener("input", () => take(box.value));
  typed.addEventListener("input", () => { if (box.value !== typed.value) box.value = typed.value; });
  const take = (sentence) => {
    typed.value = sentence;
    typed.dispatchEvent(new Event("input"));
  };
  const [own, ...others] = [...new Set(examples)];
  const some = [own, ...others.sort((a, b) => a.length - b.length).slice(0, MOST_EXAMPLES)];
  part("examples").replaceChildren(...some.map((sentence) =>
    element("button", { type: "button", dir: "auto", onclick: () => take(sentence) }, sentence)));
  part("given").hidden = true;
  part("typing").hidden = false;
  return {
    say: (...message) => part("state").replaceChildren(...message),
    show: (sentence) => { if (box.value !== sentence) box.value = sentence; },
  };
}

// Whose results stay, dimmed, when a text is refused.
export function staleNote(text) {
  return typeof text !== "string" ? [] : [" The dimmed results below are those of “",
    element("bdi", {}, visible(text)), "”."];
}

// Translations by another model belong to the page's own sentence alone.
export function showOthers(areShown) {
  document.querySelectorAll('.first-screen [data-first="other"]')
    .forEach((other) => { other.hidden = !areShown; });
}
