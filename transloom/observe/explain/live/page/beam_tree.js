// Beam search as a tree: the candidates of each step, those it kept, and where greedy search diverges.
//
//   beamTree(model, source, {beam, alpha, prefix, switches})
//     ─▶ {root, steps, found, best, greedy, …}
//
// A node is {id, ids, parent, children, step, rank, own, sum, fate}: its piece and all pieces up to
// it, the step (from 1; the root is step 0) and its rank there (from 0), the log-probability of the
// piece and the sum of all up to it, in nats. What becomes of it, its fate:
//
//   kept      the next step goes on from it
//   ended     it is the end of a translation; `score` is its sum over the length penalty
//   pruned    k others were better
//   left      kept, but k translations had ended: the search was over
//
// `found` is what the search returns, `best` the node at which its first translation ends, and
// `greedy` the way of greedy search: its end, in a tree of its own, and what greedyPartingOf says.

import { NOTHING_SWITCHED } from "./forward.js";
import { lengthPenalty, searchSlices } from "./search.js";

export function* beamTreeSlices(model, source, { beam, alpha, prefix = [], switches = NOTHING_SWITCHED }) {
  const asked = { beam, alpha, prefix, switches };
  const { root, steps, found } = yield* grownSlices(model, source, asked);
  const greedy = yield* grownSlices(model, source, { ...asked, beam: 1 });
  const { eos_id } = model.vocabulary;
  const best = endOf(root, found[0].ids, eos_id);
  const way = endOf(greedy.root, greedy.found[0].ids, eos_id);
  return {
    root, steps, found, best, prefix, beam, alpha,
    greedy: { end: way, ...greedyPartingOf(root, way, best) },
  };
}

// One search, with all candidates of its steps.
function* grownSlices(model, source, asked) {
  const node = (parent, id, own, sum, rank, fate) => ({
    id, own, sum, rank, fate, parent, children: [],
    step: parent ? parent.step + 1 : 0, ids: parent ? [...parent.ids, id] : [],
    forced: parent !== null && parent.step < asked.prefix.length,
  });
  const root = node(null, model.vocabulary.bos_id, 0, 0, 0, "kept");
  const steps = [];
  let live = [root];
  const note = (continuations) => {
    const nodes = continuations.map(({ parent, id, score, fate }, rank) =>
      node(live[parent], id, score - live[parent].sum, score, rank, fate));
    nodes.forEach((one) => one.parent.children.push(one));
    nodes.filter(({ fate }) => fate === "ended").forEach((one) => {
      one.score = one.sum / lengthPenalty(one.step, asked.alpha);
    });
    steps.push(nodes);
    live = nodes.filter(({ fate }) => fate === "kept");
  };
  const found = yield* searchSlices(model, source, { ...asked, note });
  live.forEach((one) => { one.fate = "left"; });
  return { root, steps, found };
}

// The node at which a translation of these pieces ends.
function endOf(root, ids, eos_id) {
  return followed(root, [...ids, eos_id]).at(-1);
}

// The nodes along these pieces, from the root's child on, as far as the tree has them.
export function followed(root, ids) {
  const way = [];
  let at = root;
  for (const id of ids) {
    at = at.children.find((child) => child.id === id);
    if (!at) break;
    way.push(at);
  }
  return way;
}

// Where the way of greedy search leaves that of the best translation, and where the tree loses it:
// {way: its nodes in the tree, parts: the step from which the pieces differ, or null, lost: the step
// from which the tree has it no more, or null}.
function greedyPartingOf(root, end, best) {
  const way = followed(root, end.ids);
  const differs = end.ids.findIndex((id, n) => id !== best.ids[n]); // both end with EOS
  return {
    way, parts: differs < 0 ? null : differs + 1,
    lost: way.length < end.ids.length ? way.length + 1 : null,
  };
}

// All nodes from the one after the root to this one.
export function wayTo(node) {
  return node.parent ? [...wayTo(node.parent), node] : [];
}

// The labels and numbers of all nodes, as rows, in the order of the steps.
export function tableOfTree({ steps, root }, pieces) {
  const nodes = [root, ...steps.flat()];
  const number = new Map(nodes.map((node, n) => [node, n]));
  return [
    ["node", "parent", "step", "rank", "id", "piece", "log-probability", "sum", "score", "fate"],
    ...nodes.map((node, n) => [
      n, node.parent ? number.get(node.parent) : null, node.step, node.parent ? node.rank + 1 : null,
      node.id, pieces[node.id], node.own, node.sum, node.score ?? null,
      node.forced ? "forced" : node.fate,
    ]),
  ];
}
