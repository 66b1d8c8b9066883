// The settings in which runs differ, side by side.

import { element } from "./drawing/elements.js";
import { labelled, stepsTable } from "./drawing/parts.js";
import { fill, quiet } from "./dom.js";
import { differences } from "./filters.js";
import { settingText } from "./words.js";

export class Differences {
  root = element("div", { class: "scrolls tall", tabindex: "0", role: "region", "aria-label": "Table of differences" });
  #shown = "";

  // `rows`: the runs' rows of the table, with their colours.
  show(rows) {
    const key = JSON.stringify(rows.map(({ id, colour, standing }) => [id, colour, standing.settings]));
    if (key === this.#shown) return;
    this.#shown = key;
    fill(this.root, this.#made(rows));
  }

  #made(rows) {
    if (rows.length < 2) return quiet("Select two or more runs to compare their recipes.");
    const found = differences(rows);
    if (!found.length) return quiet("The recipes are the same in all fields.");
    const titles = rows.map(({ standing, colour }) => [element("span", { class: `swatch ${colour.slice(2)}` }), standing.name]);
    return stepsTable(["setting", ...titles], found.map(({ key, values }) => labelled(key, values.map((value) =>
      element("td", { class: "text" }, settingText(value))))), "Settings in which the selected runs differ",
    "plain differences", "unseen");
  }
}
