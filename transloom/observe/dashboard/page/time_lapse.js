// A run's probe sentences over time: a slider over the recorded steps, the translation after each,
// and its cross-attention.

import { element } from "./drawing/elements.js";
import { fill, setText, table } from "./dom.js";
import { counted } from "./drawing/numbers.js";
import { labelled, stepsTable } from "./drawing/parts.js";
import { player } from "./drawing/player.js";
import { whole } from "./words.js";

export class TimeLapse {
  root = element("div", { class: "time-lapse" });
  isEmpty = true;
  #sentences = {};
  #said = element("output", { dir: "auto" });
  #map = element("div", {});
  #choice = element("select", { "aria-label": "Sentence", change: () => this.#choose() });
  #player = player("Step", (place) => this.#draw(place));
  #all = element("div", {});

  // `answer`: of /api/runs/ID/time-lapse. The user's choice of sentence and step is kept.
  show({ sentences, problems }) {
    this.#sentences = sentences;
    const names = Object.keys(sentences);
    this.isEmpty = !names.length && !problems.length;
    const told = problems.map((problem) => element("p", { class: "problem" }, problem));
    if (!names.length) {
      fill(this.root, ...told);
      return;
    }
    const before = this.#choice.value;
    fill(this.#choice, ...names.map((name) => element("option", { value: name }, name)));
    if (names.includes(before)) this.#choice.value = before;
    if (!this.#said.isConnected) {
      fill(this.root, element("p", {}, this.#choice), this.#player.root, element("p", {}, this.#said),
        element("div", { class: "side-by-side" }, this.#map, this.#all), ...told);
    }
    this.#choose();
  }

  get #moments() {
    return this.#sentences[this.#choice.value] ?? Object.values(this.#sentences)[0];
  }

  // Shows the newest step, unless the user has moved the slider back.
  #choose() {
    const [place, count] = this.#player.here();
    const rows = this.#moments.toReversed().map(({ step, output }) => [whole(step), output || "(nothing)"]);
    fill(this.#all, table("The translation after each step", ["step", "translation"], rows,
      { quiet: true, texts: [1], tall: true }));
    this.#player.length(this.#moments.length, place === count - 1 ? this.#moments.length - 1 : place);
  }

  #draw(place) {
    const moment = this.#moments[place];
    const { step, output, ended } = moment;
    setText(this.#said, (output || "(nothing)") + (ended ? "" : " …"));
    fill(this.#map, mapOf(moment));
    return `after ${counted(step, "step")}`;
  }
}

// The mean of all heads' cross-attention as a table: a row for each output piece.
function mapOf({ source, target, weights, ended }) {
  const pieces = [...target.slice(1), ended ? "(end)" : "…"];
  const cell = (weight) => {
    const drawn = element("td", {}, weight ? String(weight) : "");
    drawn.style.setProperty("--weight", `${weight / 2}%`); // half the colour: text stays readable
    return drawn;
  };
  return element("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Cross-attention" },
    stepsTable(["piece", ...source.map((piece) => element("bdi", {}, piece))],
      weights.map((row, t) => labelled(pieces[t], row.map(cell))),
      "Cross-attention of each output piece: mean of all heads, percent", "attention"));
}
