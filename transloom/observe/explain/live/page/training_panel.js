// Draws what training sees of the sentence: a reference is typed, its losses and targets stand
// below, and dropout_panel.js draws masks.

import { element } from "../../../drawing/elements.js";
import { formatCount, formatPercent, formatPrecise, formatSigned } from "../../../drawing/numbers.js";
import { cell, labelled, stepsTable } from "../../../drawing/parts.js";
import { visible } from "../../../drawing/text.js";
import { candidatesAt } from "./computing.js";
import { dropoutPanel } from "./dropout_panel.js";
import { slicesInTurn, whenTyped } from "./slices.js";
import { nats, targetBesideModel, teacherForcedSlices, totalOf } from "./training.js";

const OTHERS = 5; // pieces beside the right one

// A table in a box that scrolls; `rows` are lists of cells, or such lists with a class.
function scrollingTable(label) {
  const box = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label });
  const line = ({ cells: [first, ...others], kind = null }) =>
    labelled(first, others.map((one) => cell(one)), kind);
  const fill = (titles, rows) =>
    box.replaceChildren(stepsTable(titles, rows.map(line), null, "steps losses"));
  return { box, fill };
}

// Fills `root`. `settings` are the recipe's: {loss, label_smoothing, r_drop, dropout,
// attention_dropout, pairs}; `sentence` gives what the model makes of the present one, and `take`
// puts another in its place. `show` draws everything anew.
export function trainingPanel(root, model, settings, sentence, take) {
  const smoothing = settings.label_smoothing;
  const state = { row: 0, forced: null, isTyped: false };
  const piece = (id) => element("bdi", {}, visible(model.target.pieces[id]));
  const paragraph = (...parts) => element("p", {}, parts.join(" "));

  const reference = element("textarea", { id: "live-reference", rows: 1, maxlength: 1000,
    dir: "auto", spellcheck: "false", oninput: () => {
      state.isTyped = true;
      soon();
    } });
  const own = element("button", { type: "button", onclick: () => {
    state.isTyped = false;
    show();
  } }, "Take the model's own");
  const said = element("p", { role: "status" });
  const losses = scrollingTable("Loss of each piece");
  const row = element("select", { onchange: () => {
    state.row = Number(row.value);
    showTarget();
  } });
  const target = scrollingTable("Target and model");
  const dropout = dropoutPanel(model, settings, sentence, show);

  function pairs() {
    if (!settings.pairs.length) return [];
    const choice = element("select", { onchange: () => {
      const pair = settings.pairs[Number(choice.value || NaN)];
      if (!pair) return;
      reference.value = pair[1];
      state.isTyped = true;
      take(pair[0]);
    } }, element("option", { value: "" }, "choose …"),
    settings.pairs.map(([source], n) => element("option", { value: n }, visible(source))));
    return [" ", element("label", {}, "Or a pair of the validation set: ", choice)];
  }

  root.replaceChildren(
    element("h2", { class: "part", id: "live-training" }, "In training"),
    paragraph("In training, the decoder reads the correct translation, shifted by one position:",
      "each row reads the correct pieces so far, and must predict the next piece, regardless of what",
      "the model would have chosen (teacher forcing). The mask hides the next piece from each row,",
      "so all rows are computed in one pass."),
    element("p", {}, element("label", { for: "live-reference" }, "Reference translation"),
      reference),
    element("p", {}, own, ...pairs()), said, losses.box,
    element("h3", {}, "Loss of one row"),
    paragraph("loss = (1 − ε) · −log p(right) + ε/v · Σ −log p(each), with ε =", smoothing,
      "(label smoothing) and v =", `${formatCount(model.target.pieces.length)} pieces:`,
      "every piece gets a small share of the target. “Gradient” is p − q, the gradient of the loss by",
      "the logit: training lowers logits with a gradient above zero, and raises the others."),
    ...(settings.loss === "cross_entropy" ? [] : [
      paragraph("This run minimised the loss of an extension instead:", visible(settings.loss))]),
    ...(settings.r_drop === 0 ? [] : [
      paragraph("In this run, each step computed every sentence twice with different dropout, and",
        `added ${settings.r_drop}/4 times the sum of the Kullback–Leibler divergences between the`,
        "two predictions (R-Drop). The table shows the loss of one of the two passes.")]),
    element("p", {}, element("label", {}, "Row ", row)), target.box,
    dropout.root);

  const inTurn = slicesInTurn([losses.box, target.box, dropout.root], (message) => {
    said.textContent = `${message} The dimmed results are those of the previous reference.`;
  });

  function show() {
    return inTurn.run(showSlices());
  }
  const soon = whenTyped(inTurn, show);

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

  // `dropped`: the same with a mask of dropout; null for a model without.
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
    losses.fill(["row", "input", "correct next", "its probability", "most probable next",
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
    target.fill(["piece", "target, q", "model, p", "gradient, p − q", "loss, −q · log p"],
      [...lines, sum]);
  }

  return { show };
}
