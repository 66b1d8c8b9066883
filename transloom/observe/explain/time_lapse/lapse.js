// The time-lapse: a sentence's translation, predictions and attention at moments of the training.

import { heatMap, paintAll } from "../../drawing/heat_map.js";
import { candidatesCell, cell, labelled } from "../../drawing/parts.js";
import { player } from "../../drawing/player.js";
import { written } from "../../drawing/text.js";

const FULL = 255; // the byte of a weight of 1

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
    const follows = (t) => target[t + 1] ?? (ended ? predictions[t][0].piece : null);
    part("predictions").tBodies[0].replaceChildren(...predictions.map((best, t) => labelled(`${t + 1}`,
      [cell(target[t]), candidatesCell(best, follows(t))])));
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
    [...part("all").children].forEach((list, n) => { list.hidden = n !== Number(part("sentence").value); });
    lapse.querySelectorAll("[data-at]").forEach((button) => {
      const isHere = Number(button.dataset.at) === here;
      button.closest("tr").classList.toggle("marked", isHere);
      button.ariaCurrent = isHere ? "step" : null;
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
}

// The first moment with half of the words of the last translation: before, little has been learned.
function startOf(moments) {
  const wordsOf = ({ output }) => new Set(output.split(" "));
  const last = wordsOf(moments.at(-1));
  return moments.findIndex((moment) => 2 * wordsOf(moment).intersection(last).size >= last.size);
}
