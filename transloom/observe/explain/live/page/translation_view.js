// The pieces of the sentence, with the characters that each stands for, and the translation.

import { element } from "../../../drawing/elements.js";
import { formatPrecise } from "../../../drawing/numbers.js";
import { pieceText } from "../../../drawing/parts.js";
import { visible, written } from "../../../drawing/text.js";
import { standsFor } from "./computing.js";

export function showPieces({ part, plain, model }) {
  const items = plain.ids.map((id, n) => {
    const { text, note } = standsFor(model, plain, n);
    const letters = visible(text).replaceAll(" ", "␣");
    return element("li", { class: note.startsWith("unknown") ? "unknown" : null },
      pieceText(model.source.pieces[id]),
      element("span", { dir: "auto" }, letters ? `“${letters}”` : "", note ? ` ${note}` : ""),
      element("small", {}, `id ${id}`));
  });
  part("pieces").replaceChildren(...items);
}

export function translationLine(label, result) {
  return element("p", {}, element("span", { class: "quiet" }, label),
    element("output", { dir: "auto" }, written(result.translation)),
    element("small", {}, ` log-probability ${formatPrecise(result.logProbability)} nats`));
}
