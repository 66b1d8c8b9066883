// Draws a beam tree (beam_tree.js): a column for each step with its continuations, best first, and a
// line from each to its parent. For assistive technology, the drawing is a tree of nodes.

import { svgMaker } from "../../../drawing/elements.js";
import { formatNumber, formatPrecise } from "../../../drawing/numbers.js";
import { visible } from "../../../drawing/text.js";
import { wayTo } from "./beam_tree.js";

const TREE = { row: 44, height: 36, gap: 30, top: 26, narrowest: 62, letter: 8.2, letters: 15 };
const FATES = {
  kept: "kept", ended: "ended", pruned: "pruned",
  left: "kept, but not extended: the search ended because enough translations were complete",
};

// Fills an SVG element. `pieces` are the texts of the vocabulary; without `pruned`, what was pruned
// is left out. Returns the element of each node.
export function drawTree(svg, tree, pieces, pruned) {
  const made = svgMaker(svg);
  const columns = [[tree.root], ...tree.steps]
    .map((nodes) => nodes.filter(({ fate }) => pruned || fate !== "pruned"));
  const ways = { best: new Set(wayTo(tree.best)), greedy: new Set(tree.greedy.way) };
  const placed = placedNodes(columns, pieces);
  const [edges, boxes] = [[], new Map()];
  for (const [node, place] of placed) {
    const kinds = [node.fate, ...Object.keys(ways).filter((way) => ways[way].has(node)),
      ...(node.forced ? ["forced"] : [])].join(" ");
    if (node.parent) edges.push(...edgesTo(made, place, placed.get(node.parent), kinds));
    boxes.set(node, boxOf(made, tree, node, place, kinds, pieces));
  }
  const last = columns.at(-1).length ? placed.get(columns.at(-1)[0]) : placed.get(tree.root);
  const width = last.x + last.width + 8;
  const height = TREE.top + Math.max(...columns.map(({ length }) => length)) * TREE.row;
  const titles = columns.slice(1).map((nodes, n) => nodes.length ? made("text", {
    x: placed.get(nodes[0]).x, y: 14, class: "step" }, `step ${n + 1}`) : "");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  svg.replaceChildren(made("g", { "aria-hidden": "true" }, ...titles, ...edges), ...boxes.values());
  return boxes;
}

// The layout of the nodes: node ─▶ {x, y, width, label}.
function placedNodes(columns, pieces) {
  const placed = new Map();
  let x = 4;
  for (const nodes of columns) {
    const labels = nodes.map(({ id }) => shortLabel(pieces[id]));
    const longest = Math.max(0, ...labels.map((label, n) =>
      Math.max([...label].length, secondLine(nodes[n]).length * 0.86)));
    const width = Math.max(TREE.narrowest, Math.ceil(longest * TREE.letter) + 18);
    nodes.forEach((node, n) =>
      placed.set(node, { x, y: TREE.top + n * TREE.row, width, label: labels[n] }));
    x += width + TREE.gap;
  }
  return placed;
}

function shortLabel(text) {
  const letters = [...visible(text)];
  return letters.length > TREE.letters
    ? letters.slice(0, TREE.letters - 1).join("") + "…" : letters.join("");
}

function secondLine({ parent, sum, score }) {
  if (!parent) return "begin";
  return score === undefined ? formatNumber(sum) : `score ${formatNumber(score)}`;
}

// A line, and a dashed one beside it where greedy search goes.
function edgesTo(made, to, from, kinds) {
  const line = (aside, name) => {
    const [x1, y1] = [from.x + from.width, from.y + TREE.height / 2 + aside];
    const [x2, y2] = [to.x, to.y + TREE.height / 2 + aside];
    const bend = TREE.gap * 0.6;
    const d = `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
    return made("path", { d, class: name });
  };
  const edge = line(0, `edge ${kinds}`);
  return kinds.includes("greedy") ? [edge, line(6, "edge way")] : [edge];
}

function boxOf(made, tree, node, { x, y, width, label }, kinds, pieces) {
  const round = node.fate === "ended" ? TREE.height / 2 : 5;
  return made("g", {
    class: `node ${kinds}`, role: "treeitem", tabindex: -1, "aria-level": node.step + 1,
    "aria-label": spokenNode(tree, node, pieces),
  },
  made("rect", { x, y, width, height: TREE.height, rx: round }),
  made("text", { x: x + width / 2, y: y + 15, class: "name" }, label),
  made("text", { x: x + width / 2, y: y + 30 }, secondLine(node)));
}

// A description of a node in a sentence.
export function spokenNode({ steps, best, found, greedy }, node, pieces) {
  if (!node.parent) return "the beginning";
  const among = steps[node.step - 1].length;
  const returned = node.fate !== "ended" || found.some(({ ids }) =>
    ids.length === node.ids.length - 1 && ids.every((id, n) => id === node.ids[n]));
  return [
    `step ${node.step}, ${node.forced ? "forced" : `number ${node.rank + 1} of ${among}`}: ` +
      `“${visible(pieces[node.id])}”`,
    `log-probability ${formatPrecise(node.own)}`, `sum ${formatPrecise(node.sum)}`,
    ...(node.score === undefined ? [] : [`score ${formatPrecise(node.score)}`]),
    returned ? FATES[node.fate] : "ended, but other translations have a higher score",
    ...(wayTo(best).includes(node) ? ["part of the best translation"] : []),
    ...(greedy.way.includes(node) ? ["part of the translation of greedy search"] : []),
  ].join(", ");
}
