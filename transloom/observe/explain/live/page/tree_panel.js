// The beam tree in the page: its controls, its keyboard navigation, and texts about it.
//
//   treePanel(part, model, current) ─▶ {show}        current() ─▶ {ids, switches}

import { formatPrecise } from "../../../drawing/numbers.js";
import { cell, labelled, stepsTable } from "../../../drawing/parts.js";
import { savable, standalone } from "../../../drawing/saving.js";
import { visible, written } from "../../../drawing/text.js";
import { beamTreeSlices, followed, tableOfTree } from "./beam_tree.js";
import { lengthPenalty } from "./search.js";
import { slicesInTurn } from "./slices.js";
import { drawTree, spokenNode } from "./tree_drawing.js";

const WIDEST_BEAM = 8;

export function treePanel(part, model, current) {
  const state = { tree: null, prefix: [], ids: [], boxes: new Map(), at: null };
  const inTurn = slicesInTurn(["tree", "tree-said", "node-said", "found"].map(part));

  // Search and draw the tree; resolve to whether it was drawn.
  async function show() {
    const { ids, switches } = current();
    const [beam, alpha] = ["beam-size", "alpha"].map((name) => part(name));
    if (![beam, alpha].every((input) => input.checkValidity())) return false;
    if (ids.join() !== state.ids.join()) state.prefix = []; // another sentence
    state.ids = ids;
    const tree = await inTurn.run(beamTreeSlices(model, ids, {
      beam: beam.valueAsNumber, alpha: alpha.valueAsNumber, prefix: state.prefix, switches,
    }));
    if (!tree) return false;
    state.tree = tree;
    draw();
    return true;
  }

  function draw() {
    const { tree } = state;
    const { pieces } = model.target;
    state.boxes = drawTree(part("tree"), tree, pieces, part("pruned").checked);
    const wanted = followed(tree.root, state.prefix).at(-1); // as far as the tree has them
    goTo(state.boxes.has(wanted) ? wanted : tree.root, false);
    part("forced").hidden = state.prefix.length === 0;
    part("forced-pieces").textContent =
      state.prefix.map((id) => visible(pieces[id])).join(" ");
    part("tree-said").textContent = partingText(tree, pieces);
    part("beam-kept").textContent = keptText(tree.beam);
    part("found").replaceChildren(foundTable(tree, model.target));
  }

  // Makes a node the one that Tab leads to, and focuses it.
  function goTo(node, focus = true) {
    state.boxes.get(state.at)?.setAttribute("tabindex", -1);
    state.at = node;
    const box = state.boxes.get(node);
    box.setAttribute("tabindex", 0);
    part("node-said").textContent = spokenNode(state.tree, node, model.target.pieces);
    if (focus) box.focus();
  }

  // The pieces up to this node become what translations begin with; the end is no such piece.
  async function force(node) {
    const { eos_id } = model.vocabulary;
    state.prefix = node.ids.filter((id) => id !== eos_id);
    if (await show()) goTo(state.at);
  }

  function pressed(event) {
    const { at, boxes } = state;
    const shown = (nodes) => nodes.filter((node) => boxes.has(node));
    const beside = (by) => {
      const column = at.parent ? shown(state.tree.steps[at.step - 1]) : [at];
      return column[column.indexOf(at) + by];
    };
    const to = {
      ArrowLeft: () => at.parent, ArrowRight: () => shown(at.children)[0],
      ArrowUp: () => beside(-1), ArrowDown: () => beside(1),
      Home: () => state.tree.root, End: () => state.tree.best,
    }[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (to) {
      event.preventDefault();
      const node = to();
      if (node) goTo(node);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      force(at);
    }
  }

  const nodeOf = (target) =>
    [...state.boxes].find(([, box]) => box.contains(target))?.[0] ?? null;

  part("tree").addEventListener("keydown", pressed);
  part("tree").addEventListener("click", ({ target }) => nodeOf(target) && force(nodeOf(target)));
  part("tree").addEventListener("pointerover", ({ target }) => {
    const node = nodeOf(target);
    if (!node) return;
    part("node-said").textContent = spokenNode(state.tree, node, model.target.pieces);
  });
  part("tree").addEventListener("focusin", ({ target }) => goTo(nodeOf(target), false));
  for (const name of ["beam-size", "alpha"]) part(name).addEventListener("input", show);
  part("pruned").addEventListener("change", () => state.tree && draw());
  part("free").addEventListener("click", async () => {
    state.prefix = [];
    if (await show()) goTo(state.tree.root);
  });
  part("as-trained").addEventListener("click", () => {
    recipes();
    show();
  });

  savable(part("tree-save"), {
    title: () => "Beam search",
    table: () => (state.tree ? tableOfTree(state.tree, model.target.pieces) : []),
    svg: () => standalone(part("tree")),
  });

  // The beam and α of the run's recipe.
  function recipes() {
    const { beam_size, length_penalty } = model.decoding;
    part("beam-size").max = Math.max(WIDEST_BEAM, beam_size);
    part("beam-size").value = beam_size;
    part("alpha").value = length_penalty;
  }

  recipes();
  return { show };
}

// The fates of a step's extensions, in words.
function keptText(beam) {
  if (beam === 1) {
    return "If the best one is a finished translation, it is kept aside. The best unfinished one " +
      "goes on; the rest are dropped.";
  }
  return `Finished translations among the best ${beam} are kept aside. The best ${beam} ` +
    "unfinished ones go on; the rest are dropped.";
}

// Where greedy search parts from the best translation.
function partingText({ best, greedy, beam }, pieces) {
  const piece = (id) => `“${visible(pieces[id])}”`;
  const score = ({ score }) => formatPrecise(score);
  if (greedy.parts === null) {
    return `Greedy search finds the same translation, with the score ${score(best)}.`;
  }
  const at = greedy.parts - 1;
  const lost = greedy.lost === null ? ""
    : ` In step ${greedy.lost}, the beam of ${beam} drops the translation of greedy search.`;
  return `Greedy search differs from the best translation from step ${greedy.parts} on: it takes ` +
    `${piece(greedy.end.ids[at])}, the most probable piece, and the best translation has ` +
    `${piece(best.ids[at])}. Greedy search reaches the score ${score(greedy.end)}, the best ` +
    `translation ${score(best)}.${lost}`;
}

// What was found, best first, and how the length penalty makes scores of log-probabilities.
function foundTable({ found, alpha }, target) {
  const titles = ["translation", "pieces", "log-probability", "penalty", "score"];
  const line = ({ ids, score }) => {
    const length = ids.length + 1; // with EOS
    const penalty = lengthPenalty(length, alpha);
    return labelled(written(target.decode(ids)), [String(length), formatPrecise(score * penalty),
      `÷ ${formatPrecise(penalty)}`, formatPrecise(score)].map((text) => cell(text)));
  };
  return stepsTable(titles, found.map(line),
    "Translations that the search finds, best first; pieces include the end");
}
