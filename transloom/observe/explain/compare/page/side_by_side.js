// The section of two models: a comparison, by comparison.py or comparing.js, as tables and maps.
// In all maps, a share has its full colour at 1, and a difference at ±1: both have the same scale.

import { element } from "../../../drawing/elements.js";
import { heatMap, paintAll } from "../../../drawing/heat_map.js";
import { formatPercent, formatPrecise } from "../../../drawing/numbers.js";
import { candidatesCell, cell, labelled, lensCell, pieceText, stepsTable } from "../../../drawing/parts.js";
import { makeSavable } from "../../../drawing/saving.js";
import { visible, written } from "../../../drawing/text.js";
import { comparisonSlices } from "./comparing.js";
import { modelInPage } from "../../live/page/loading.js";
import { nameOfAttention } from "../../live/page/places.js";
import { slicesInTurn, whenTyped } from "../../live/page/slices.js";
import { staleNote } from "../../walk/first_screen.js";
import { meanOf } from "../../live/page/tensors.js";
import { rowsOf } from "../../walk/trace.js";

const section = document.getElementById("compare");
const part = (name) => section.querySelector(`[data-compare="${name}"]`);
const MEAN = "mean"; // of all heads
const state = { found: null, models: null, place: null, head: MEAN };

function show() {
  const { found } = state;
  part("read").textContent = visible(found.sentence);
  const together = found.same_target ? [found.sides] : found.sides.map((side) => [side]);
  showTranslations();
  showParting();
  part("steps").replaceChildren(...together.map(stepsOf));
  part("lens").replaceChildren(...together.map(lensTable));
  part("cut").textContent = found.cut ? `The maps show only ${found.cut}.` : "";
  showDistances();
  showChoices();
  showMaps();
}

function showTranslations() {
  const rows = state.found.sides.map((side) => labelled(side.name, [
    cell(element("output", {}, written(side.translation))),
    cell(`${formatPrecise(side.log_probability)} nats`)]));
  part("translations").replaceChildren(
    stepsTable(["model", "its greedy translation", "log-probability"], rows));
}

function showParting() {
  const { parting, sides, same_target } = state.found;
  part("parting-table").replaceChildren();
  if (!parting) {
    part("parting").textContent = same_target
      ? "The translations do not diverge: both models write the same pieces."
      : "The vocabularies differ, so the steps of the two models cannot be compared.";
    return;
  }
  const { step, probabilities } = parting;
  const before = sides[0].written.slice(0, step).flatMap((piece) => [" ", pieceText(piece)]);
  part("parting").replaceChildren(...(step === 0 ? ["The translations diverge at the first step."]
    : [`The translations diverge at step ${step + 1}, after`, ...before, "."]));
  const pieces = sides.map(({ written }) => written[step]);
  part("parting-table").replaceChildren(stepsTable(
    ["model", ...pieces.map((piece, n) => ["probability of ", pieceText(piece),
      `, chosen by ${sides[n].name}`])],
    sides.map(({ name }, n) => labelled(name, probabilities[n].map(barOf)))));
}

// A bar from 0 to 1, and the number.
function barOf(share) {
  const filled = element("i");
  filled.style.width = `${(100 * share).toFixed(1)}%`;
  return element("td", { class: "share" },
    element("span", { class: "track", "aria-hidden": "true" }, filled), formatPercent(share));
}

function stepsOf(sides) {
  const { asked, target } = sides[0];
  const rows = asked.map((piece, t) => labelled(`${t + 1}`, [cell(pieceText(target[t])),
    sides.map(({ steps }) => candidatesCell(steps[t].best)), cell(pieceText(piece)),
    sides.map(({ steps }) => barOf(steps[t].asked))]));
  const mean = element("tr", { class: "sum" },
    element("th", { scope: "row", colspan: 3 + sides.length }, "mean loss, nats per piece"),
    sides.map((side) => cell(formatPrecise(lossOf(side)))));
  return stepsTable(["step", "input", ...sides.map(({ name }) => `most probable next, ${name}`),
    "next piece", ...sides.map(({ name }) => `its probability, ${name}`)], [...rows, mean]);
}

// −log p, the mean over the steps.
function lossOf({ steps }) {
  return -meanOf(steps.map(({ asked }) => Math.log(asked)));
}

function lensTable(sides) {
  const layers = sides.flatMap(({ name, lens }) =>
    lens.map((layer) => ({ title: `${layer.name}, ${name}`, steps: layer.steps })));
  const predicted = ({ steps }, t, piece) => {
    const [best] = steps[t].best;
    return lensCell(best.piece, best.probability,
      best.piece === piece ? null : `next piece: ${formatPercent(steps[t].asked)}`);
  };
  const { asked } = sides[0];
  const rows = asked.map((piece, t) => labelled(`${t + 1}`,
    [layers.map((layer) => predicted(layer, t, piece)), cell(pieceText(piece))]));
  return stepsTable(["step", ...layers.map(({ title }) => title), "next piece"], rows);
}

// The attention at a place of each side, or undefined where a model has none there.
function attentionsAt(key) {
  return state.found.sides.map(({ attentions }) => attentions.find((one) => one.key === key));
}

// Whether queries and keys are the same pieces in both models.
function canBeSubtracted(key) {
  const { same_source, same_target } = state.found;
  const [reads, looksAt] = key.startsWith("encoder.") ? [same_source, same_source]
    : [same_target, key.endsWith("cross_attention") ? same_source : same_target];
  return reads && looksAt && attentionsAt(key).every(Boolean);
}

// A row for each query of one head, or of the mean of all.
function weightsOf(attention, head) {
  if (head !== MEAN) return rowsOf(attention, Number(head));
  const all = Array.from({ length: attention.shape[0] }, (_, h) => rowsOf(attention, h));
  return all[0].map((line, t) => Array.from(line, (_, s) => meanOf(all.map((rows) => rows[t][s]))));
}

// ½ Σ |a − b| of a row, the mean over the rows: 0 is the same, 1 is nothing in common.
function distanceOf(one, other) {
  return meanOf(one.map((line, t) =>
    line.reduce((sum, weight, s) => sum + Math.abs(weight - other[t][s]), 0) / 2));
}

function showDistances() {
  const keys = allKeys().filter(canBeSubtracted);
  part("distances-words").hidden = keys.length === 0;
  if (!keys.length) return part("distances").replaceChildren();
  const heads = Math.min(...attentionsAt(keys[0]).map(({ shape }) => shape[0]));
  const choices = choicesOf(heads);
  const numbers = keys.map((key) => choices.map((head) =>
    distanceOf(...attentionsAt(key).map((attention) => weightsOf(attention, head)))));
  part("distances").replaceChildren(heatMap({ title: "distance of the attentions", values: numbers, isShare: true,
    rows: keys.map(nameOfAttention), columns: choices.map(nameOfHead) }));
  part("distances").firstChild.addEventListener("numberchosen", ({ detail: { line, column } }) => {
    choose(keys[numbers.indexOf(line)], choices[column]);
    part("place").focus();
  });
}

const choicesOf = (heads) => [MEAN, ...Array.from({ length: heads }, (_, h) => String(h))];

function nameOfHead(head) {
  return head === MEAN ? "mean of heads" : `head ${Number(head) + 1}`;
}

// All places of both models, in the order of computation.
function allKeys() {
  const [one, other] = state.found.sides.map(({ attentions }) => attentions.map(({ key }) => key));
  return one.length >= other.length ? [...one, ...other.filter((key) => !one.includes(key))]
    : [...other, ...one.filter((key) => !other.includes(key))];
}

function showChoices() {
  const keys = allKeys();
  if (!keys.includes(state.place)) { // both have a first layer
    state.place = keys.findLast((key) =>
      key.endsWith("cross_attention") && attentionsAt(key).every(Boolean));
  }
  part("place").replaceChildren(...keys.map((key) =>
    element("option", { value: key }, nameOfAttention(key))));
  part("place").value = state.place;
  const heads = Math.max(...state.found.sides.map(({ attentions }) => attentions[0].shape[0]));
  part("head").replaceChildren(...choicesOf(heads).map((head) =>
    element("option", { value: head }, nameOfHead(head))));
  part("head").value = state.head;
}

function choose(place, head) {
  Object.assign(state, { place, head });
  showChoices();
  showMaps();
}

function showMaps() {
  const { place, head, found } = state;
  const maps = attentionsAt(place).map((attention, n) => {
    if (!attention || (head !== MEAN && Number(head) >= attention.shape[0])) return null;
    const { source, target } = found.sides[n];
    const [, length, keys] = attention.shape;
    return {
      values: weightsOf(attention, head),
      rows: (place.startsWith("encoder.") ? source : target).slice(0, length),
      columns: (/^encoder\.|cross_attention$/.test(place) ? source : target).slice(0, keys),
    };
  });
  const drawn = maps.map((map, n) => (map ? heatMap({ title: found.sides[n].name, isShare: true, ...map })
    : element("p", {}, `${found.sides[n].name} has no such head.`)));
  if (maps.every(Boolean) && canBeSubtracted(place)) {
    const values = maps[1].values.map((line, t) =>
      line.map((weight, s) => weight - maps[0].values[t][s]));
    const title = `${found.sides[1].name} less ${found.sides[0].name}`;
    drawn.push(heatMap({ ...maps[0], title, values, greatest: 1 }));
  }
  part("maps").replaceChildren(...drawn);
  paintAll(section);
  makeSavable(section);
}

const results = ["translations", "parting", "parting-table", "steps", "lens", "distances", "maps"];
const inTurn = slicesInTurn(results.map(part), (message) => {
  part("state").replaceChildren(message, ...staleNote(state.found.sentence));
});

const typed = document.getElementById("first-sentence");

async function compute() {
  const { names, tag } = state.given;
  const started = performance.now();
  part("state").textContent = "Computing …";
  const found = await inTurn.run(
    comparisonSlices(state.models, names, typed.value, tag));
  if (!found) return;
  state.found = found;
  const took = Math.max(1, Math.round(performance.now() - started));
  part("state").textContent = `Computed here by both models in ${took} ms.`;
  show();
}

// If both models are in the page, the section follows what is typed as soon as it is shown.
async function awaken() {
  if (!document.getElementById("compared-model")) return;
  part("state").textContent = "The models are being unpacked.";
  state.models = await Promise.all([modelInPage("live-model"), modelInPage("compared-model")]);
  part("state").textContent = "Type another sentence at the top of the page to compare both models on it.";
  const isShown = () => section.classList.contains("here");
  const follow = whenTyped(inTurn, compute);
  typed.addEventListener("input", () => isShown() && follow());
  section.draw = () => { if (typed.value && typed.value !== state.found.sentence) compute(); };
  if (isShown()) section.draw();
}

state.found = JSON.parse(document.getElementById("comparison").textContent,
  (name, value) => (name === "data" ? Float32Array.from(value) : value));
state.given = { names: state.found.sides.map(({ name }) => name), tag: state.found.tag };
part("place").addEventListener("change", () => choose(part("place").value, state.head));
part("head").addEventListener("change", () => choose(state.place, part("head").value));
show();
awaken().catch((error) => {
  part("state").textContent = `This browser cannot run the models (${error.message}). ` +
    "The figures show the sentence from the command line.";
});
