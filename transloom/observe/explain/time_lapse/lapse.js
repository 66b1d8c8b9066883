// The time-lapse: a sentence at moments of the training, each with its translation, predictions and
// attention. If the page has the weights of several checkpoints, it also plays what is typed.

import { element } from "../../drawing/elements.js";
import { heatMap, paintAll } from "../../drawing/heat_map.js";
import { formatPercent } from "../../drawing/numbers.js";
import { cell, labelled, table } from "../../drawing/parts.js";
import { player } from "../../drawing/player.js";
import { written } from "../../drawing/text.js";
import { candidatesAt, computeSentenceSlices } from "../live/page/computing.js";
import { NOTHING_SWITCHED } from "../live/page/forward.js";
import { attentionsOf } from "../live/page/heads.js";
import { loadLiveModel, modelInPage } from "../live/page/loading.js";
import { tensorAt } from "../live/page/places.js";
import { followTyped, slicesInTurn } from "../live/page/slices.js";

const FULL = 255; // the byte of a weight of 1
const CANDIDATES = 5; // of a step of the typed sentence

for (const lapse of document.querySelectorAll(".lapse")) {
  const part = (name) => lapse.querySelector(`[data-lapse="${name}"]`);
  const histories = JSON.parse(part("data").textContent, (name, value) => (name === "weights"
    ? Float32Array.from(atob(value), (letter) => letter.charCodeAt(0) / FULL) : value));
  const { root, length, go, here } = player("Step of training", show);
  part("player").replaceWith(root);

  const history = () => histories[Number(part("sentence").value)];

  function show(here) {
    const moment = history().moments[here];
    const { name, output, ended, cut } = moment;
    part("output").textContent = written(output);
    part("ended").textContent = [
      ended ? "" : "… (cut at the maximum length)",
      cut ? `The sentence's last ${cut} pieces are left out.` : "",
    ].filter(Boolean).join(" ");
    showPredictions(moment);
    showMaps(moment);
    markRow(here);
    return `after ${name}`;
  }

  function showPredictions({ predictions, target, ended }) {
    const candidate = (chosen) => ([piece, probability], place) => {
      const isChosen = chosen === null ? place === 0 && ended : piece === chosen && place === 0;
      const shown = element("span", { class: isChosen ? "candidate chosen" : "candidate" },
        element("bdi", {}, piece), ` ${formatPercent(probability)}`);
      shown.style.setProperty("--share", `${100 * probability}%`);
      return shown;
    };
    part("predictions").tBodies[0].replaceChildren(...predictions.map((best, t) => labelled(`${t + 1}`,
      [cell(target[t]), cell(best.map(candidate(target[t + 1] ?? null)))])));
  }

  function showMaps({ maps, source, target }) {
    const { shape: [heads, height, width], sides, weights, mean } =
      maps.find(({ place }) => place === part("place").value) ?? maps[0];
    const [rows, columns] = sides.map((side) => (side === "source" ? source : target));
    part("maps").replaceChildren(...Array.from({ length: heads }, (_, head) => heatMap({
      title: mean > 1 ? `mean of ${mean} heads` : `head ${head + 1}`, rows, columns, isShare: true,
      values: rows.map((_, r) => weights.subarray((head * height + r) * width, (head * height + r + 1) * width)),
    })));
    paintAll(part("maps"));
  }

  function markRow(here) {
    [...part("all").children].forEach((list, n) => {
      list.hidden = n !== Number(part("sentence").value);
      list.querySelectorAll("tbody tr").forEach((line, place) => {
        line.classList.toggle("marked", place === here);
        if (place === here) line.setAttribute("aria-current", "step");
        else line.removeAttribute("aria-current");
      });
    });
  }

  const begin = () => length(history().moments.length, startOf(history().moments));
  part("sentence").addEventListener("change", begin);
  part("place").addEventListener("change", () => showMaps(history().moments[here()[0]]));
  part("all").addEventListener("click", ({ target }) => {
    const button = target.closest("[data-at]");
    if (button) go(Number(button.dataset.at));
  });
  begin();

  const [typed, packed] = ["first-sentence", "lapse-models"].map((id) => document.getElementById(id));
  if (!typed || !packed) continue;
  const recorded = histories.length;
  const inTurn = slicesInTurn([root.parentElement], (message) => { part("typed").textContent = message; });
  let models = null;

  // The typed sentence comes after the recorded ones.
  async function compute() {
    const sentence = typed.value;
    models ??= await Promise.all([...JSON.parse(packed.textContent).map(loadLiveModel), modelInPage("live-model")]);
    const moments = await inTurn.run(momentsSlices(models, sentence));
    if (!moments) return;
    histories[recorded] = { sentence, moments };
    part("sentence").options[recorded]?.remove();
    part("sentence").append(element("option", { value: recorded, selected: true }, `typed: ${sentence}`));
    part("all").children[recorded]?.remove();
    part("all").append(table(["after", "translation"], moments.map(({ name, output }) => [name, written(output)])));
    begin();
  }

  followTyped(lapse.closest("section"), inTurn, () => histories[recorded]?.sentence, compute);
}

// The first moment with half of the words of the last translation: before, little has been learned.
function startOf(moments) {
  const wordsOf = ({ output }) => new Set(output.split(" "));
  const last = wordsOf(moments.at(-1));
  return moments.findIndex((moment) => 2 * wordsOf(moment).intersection(last).size >= last.size);
}

function* momentsSlices(models, sentence) {
  const moments = [];
  for (const model of models) {
    const result = yield* computeSentenceSlices(model, sentence, null, NOTHING_SWITCHED);
    moments.push(momentOf(model, result));
  }
  return moments;
}

function momentOf(model, { translation, chosen, traced, pieces: { source, target } }) {
  const predictions = chosen.map((_, t) => candidatesAt({ traced }, t, CANDIDATES)
    .map(({ id, probability }) => [model.target.pieces[id], probability]));
  return {
    name: model.name ?? "this page's weights", output: translation, source, target, predictions,
    ended: predictions.at(-1)[0][0] === model.target.pieces[chosen.at(-1)],
    maps: attentionsOf(model).map(({ key }) => {
      const { shape, data } = tensorAt(traced, key).weights_hts;
      const reads = key.startsWith("encoder.") ? "source" : "target";
      return { place: key, shape, weights: data, sides: [reads, key.endsWith("cross_attention") ? "source" : reads] };
    }),
  };
}
