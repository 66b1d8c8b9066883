// The settings in which runs differ, side by side.

import { element } from "./drawing/elements.js";
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
    return element("table", { class: "plain differences" },
      element("caption", { class: "unseen" }, "Settings in which the selected runs differ"),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "setting"),
        ...rows.map(({ standing, colour }) => element("th", { scope: "col" },
          element("span", { class: `swatch ${colour.slice(2)}` }), standing.name)))),
      element("tbody", {}, ...found.map(({ key, values }) => element("tr", {},
        element("th", { scope: "row" }, key),
        ...values.map((value) => element("td", { class: "text" }, settingText(value)))))));
  }
}
