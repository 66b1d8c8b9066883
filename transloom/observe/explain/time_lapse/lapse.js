// The time-lapse: a slider over moments of the training, each with its translation, predictions and
// attention. Its figures are heat maps that get other numbers.

import { element } from "../../drawing/elements.js";
import { heatMap, paint } from "../../drawing/heat_map.js";
import { formatPercent } from "../../drawing/numbers.js";
import { cell, labelled } from "../../drawing/parts.js";
import { written } from "../../drawing/text.js";

for (const lapse of document.querySelectorAll(".lapse")) {
  const part = (name) => lapse.querySelector(`[data-lapse="${name}"]`);
  const histories = JSON.parse(part("data").textContent);
  // A map for each head of the attention that has most; the numbers follow.
  const heads = histories.flatMap(({ moments }) => moments.flatMap(({ maps }) =>
    maps.map(({ shape }) => shape[0])));
  const figures = Array.from({ length: Math.max(...heads) }, () =>
    heatMap({ title: "head", values: [[0]], rows: [""], columns: [""], isShare: true, shape: [1, 1] }));
  part("maps").append(...figures);
  const FULL = 255; // the byte of a weight of 1
  const PAUSE_MS = 700; // from one moment to the next
  let playing = null;

  const history = () => histories[Number(part("sentence").value)];
  const here = () => Number(part("moment").value);

  function show() {
    const { moments } = history();
    const moment = moments[here()];
    const { name, output, ended, cut } = moment;
    part("step").textContent = `after ${name}:`;
    part("output").textContent = written(output);
    part("ended").textContent = [
      ended ? "" : "… (cut at the maximum length)",
      cut ? `The sentence's last ${cut} pieces are left out.` : "",
    ].filter(Boolean).join(" ");
    part("moment").setAttribute("aria-valuetext", `after ${name}: ${output}`);
    part("before").disabled = here() === 0;
    part("after").disabled = here() === moments.length - 1;
    showPredictions(moment);
    showMaps(moment);
    markRow();
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
    const shown = maps.find(({ place }) => place === part("place").value) ?? maps[0];
    const [heads, height, width] = shown.shape;
    const bytes = Uint8Array.from(atob(shown.weights), (letter) => letter.charCodeAt(0));
    const [rows, columns] = shown.sides.map((side) => (side === "source" ? source : target));
    figures.forEach((figure, head) => {
      figure.hidden = head >= heads;
      if (figure.hidden) return;
      const title = shown.mean > 1 ? `mean of ${shown.mean} heads` : `head ${head + 1}`;
      const weight = (r, c) => bytes[(head * height + r) * width + c] / FULL;
      figure.map = { rows, columns, values: rows.map((_, r) => columns.map((_, c) => weight(r, c))) };
      figure.querySelector("figcaption").firstChild.textContent = `${title} `;
      figure.querySelector("small").textContent = `${height} × ${width}`;
      const grid = figure.querySelector("[role=grid]");
      grid.setAttribute("aria-label", `${title}, ${height} × ${width}`);
      grid.setAttribute("aria-rowcount", height);
      grid.setAttribute("aria-colcount", width);
      grid.at = [0, 0];
      grid.querySelector(".frame").hidden = true;
      paint(figure);
    });
  }

  function markRow() {
    const tables = [...part("all").children];
    tables.forEach((table, n) => { table.hidden = n !== Number(part("sentence").value); });
    tables.forEach((table) => table.querySelectorAll("[data-at]").forEach((button) => {
      const isHere = Number(button.dataset.at) === here();
      button.closest("tr").classList.toggle("marked", isHere);
      if (isHere) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    }));
  }

  function go(place) {
    part("moment").value = place;
    show();
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    part("play").textContent = "▶ Play";
  }

  function play() {
    if (playing) return stop();
    const last = history().moments.length - 1;
    if (here() === last) go(0);
    part("play").textContent = "■ Stop";
    playing = setInterval(() => {
      go(here() + 1);
      if (here() === last) stop();
    }, PAUSE_MS);
  }

  part("sentence").addEventListener("change", () => {
    stop();
    part("moment").max = history().moments.length - 1;
    show();
  });
  part("moment").addEventListener("input", () => { stop(); show(); });
  part("place").addEventListener("change", show);
  part("before").addEventListener("click", () => { stop(); go(here() - 1); });
  part("after").addEventListener("click", () => { stop(); go(here() + 1); });
  part("play").addEventListener("click", play);
  part("all").addEventListener("click", (event) => {
    const button = event.target.closest("[data-at]");
    if (button) { stop(); go(Number(button.dataset.at)); }
  });
  show();
}
