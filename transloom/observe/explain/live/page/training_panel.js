// Draws the training on the sentence: a reader types a reference, its losses and targets are shown
// below it, and dropout_panel.js draws masks.

import { element } from "../../../drawing/elements.js";
import { formatCount, formatPercent, formatPrecise, formatSigned } from "../../../drawing/numbers.js";
import { cell, labelled, stepsTable } from "../../../drawing/parts.js";
import { visible } from "../../../drawing/text.js";
import { candidatesAt } from "./computing.js";
import { dropoutPanel } from "./dropout_panel.js";
import { slicesInTurn, whenTyped } from "./slices.js";
import { nats, targetBesideModel, teacherForcedSlices, totalOf } from "./training.js";

const OTHERS = 5; // pieces beside the right one

// `part` gives the elements of the panel. `settings` are the recipe's: {loss, label_smoothing, r_drop, dropout,
// attention_dropout, pairs}; `sentence` gives what the model makes of the present one, and `take`
// puts another in its place. `show` draws everything anew.
export function trainingPanel(part, model, settings, sentence, take) {
  const smoothing = settings.label_smoothing;
  const state = { row: 0, forced: null, isTyped: false };
  const piece = (id) => element("bdi", {}, visible(model.target.pieces[id]));
  const [reference, row, said] = ["reference", "row", "training-said"].map(part);
  const dropout = dropoutPanel(part, model, settings, sentence, show);
  // Rows are lists of cells, with a class or none.
  const fill = (name, titles, rows) => part(name).replaceChildren(stepsTable(titles,
    rows.map(({ cells: [first, ...others], kind = null }) => labelled(first, others.map((one) => cell(one)), kind)),
    null, "steps losses"));

  Object.entries({ smoothing, vocabulary: formatCount(model.target.pieces.length),
    "loss-name": visible(settings.loss), "r-drop-factor": settings.r_drop })
    .forEach(([name, text]) => { part(name).textContent = text; });
  part("other-loss").hidden = settings.loss === "cross_entropy";
  part("r-drop").hidden = settings.r_drop === 0;
  part("pairs-label").hidden = !settings.pairs.length;
  part("pairs").append(...settings.pairs.map(([source], n) => element("option", { value: n }, visible(source))));

  const inTurn = slicesInTurn(["losses", "target", "dropout"].map(part), (message) => {
    said.textContent = `${message} The dimmed results are those of the previous reference.`;
  });

  function show() {
    return inTurn.run(showSlices());
  }
  const soon = whenTyped(inTurn, show);
  reference.addEventListener("input", () => {
    state.isTyped = true;
    soon();
  });
  part("own").addEventListener("click", () => {
    state.isTyped = false;
    show();
  });
  part("pairs").addEventListener("change", ({ target }) => {
    const pair = settings.pairs[Number(target.value || NaN)];
    if (!pair) return;
    reference.value = pair[1];
    state.isTyped = true;
    take(pair[0]);
  });
  row.addEventListener("change", () => {
    state.row = Number(row.value);
    showTarget();
  });

  function* showSlices() {
    const { ids, translation } = sentence();
    if (!state.isTyped) reference.value = translation;
    const forced = (drop) =>
      teacherForcedSlices(model, ids, reference.value, smoothing, drop);
    state.forced = yield* forced(null);
    const dropped = yield* dropout.show(state.forced, forced);
    showLosses(dropped);
    const labels = state.forced.target.map((id, t) => element("option", { value: t },
      `${t + 1}: ${visible(model.target.pieces[id])}`));
    row.replaceChildren(...labels);
    state.row = Math.min(state.row, labels.length - 1);
    row.value = state.row;
    showTarget();
  }

  // `dropped`: the losses with a mask of dropout; null for a model without dropout.
  function showLosses(dropped) {
    const { input, target: ids, traced, losses: of } = state.forced;
    const columns = [[of, "nll"], [of, "smoothed"], ...(dropped ? [[dropped, "smoothed"]] : [])];
    const lines = ids.map((id, t) => {
      const [best] = candidatesAt({ traced }, t, 1);
      return { cells: [`${t + 1}`, piece(input[t]), piece(id), formatPercent(Math.exp(-of[t].nll)),
        best.id === id ? "the same" : piece(best.id),
        ...columns.map(([some, name]) => nats(some[t][name]))] };
    });
    const sums = (label, share) => ({ kind: "sum", cells: [label, "", "", "", "",
      ...columns.map(([some, name]) => nats(totalOf(some, name) / share))] });
    fill("losses", ["row", "input", "correct next", "its probability", "most probable next",
      "−log p, nats", `smoothed, ε = ${smoothing}`, ...(dropped ? ["with this dropout"] : [])],
    [...lines, sums("sum", 1), sums("mean", of.length)]);
    said.textContent = "Perplexity of this reference (exp of the mean of −log p): " +
      formatPrecise(Math.exp(totalOf(of, "nll") / of.length));
  }

  function showTarget() {
    const entries = targetBesideModel(state.forced, state.row, smoothing, OTHERS);
    const lines = entries.map(({ id, count: rest, wanted, said: p, loss }) => ({
      kind: id === state.forced.target[state.row] ? "sum" : null,
      cells: [id === null ? `the other ${formatCount(rest)} pieces` : piece(id),
        formatPrecise(wanted), formatPrecise(p), formatSigned(p - wanted), nats(loss)],
    }));
    const sum = { kind: "sum", cells: ["sum", formatPrecise(totalOf(entries, "wanted")),
      formatPrecise(totalOf(entries, "said")), "", nats(totalOf(entries, "loss"))] };
    fill("target", ["piece", "target, q", "model, p", "gradient, p − q", "loss, −q · log p"],
      [...lines, sum]);
  }

  return { show };
}
