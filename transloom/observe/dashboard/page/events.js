// Events of a run. They are shown as marks on the curves, and as a list.

import { element } from "./drawing/elements.js";
import { stepsTable } from "./drawing/parts.js";
import { fill, quiet } from "./dom.js";
import { whole } from "./words.js";

const MOST = 500; // rows of the list; a run may skip thousands of steps

// A list of events, newest first. `open(id, step)` opens the step of an event.
export class EventList {
  root = element("div", { class: "scrolls tall", tabindex: "0", role: "region", "aria-label": "List of events" });
  #store;
  #open;
  #shown = "";

  constructor({ store, open }) {
    this.#store = store;
    this.#open = open;
  }

  // `groups`: [{id, name, colour, events}], an entry for each run.
  show(groups) {
    const key = JSON.stringify(groups.map(({ id, name, colour, events }) => [id, name, colour, events.length]));
    if (key === this.#shown) return;
    this.#shown = key;
    const all = groups.flatMap((group) => group.events.map((event) => ({ ...group, event })));
    all.sort((a, b) => b.event.step - a.event.step);
    if (!all.length) {
      fill(this.root, quiet(`No events: no ${this.#store.facts.kinds.map(({ title }) => title).join(", ")}.`));
      return;
    }
    const rest = all.length > MOST ? `, the newest ${whole(MOST)} of ${whole(all.length)}` : "";
    fill(this.root, stepsTable(["step", "run", "event", "description"],
      all.slice(0, MOST).map((row) => this.#row(row)), `Events${rest}`, "plain", "unseen"),
    rest && quiet(`Showing${rest.slice(1)}.`));
  }

  #row({ id, name, colour, event }) {
    const kind = this.#store.facts.kindOf(event);
    return element("tr", {},
      element("td", { class: "number" }, element("button", {
        type: "button", class: "link", click: () => this.#open(id, event.step),
        "aria-label": `open step ${event.step} of ${name}`,
      }, whole(event.step))),
      element("td", { class: "short", title: name }, element("span", { class: `swatch ${colour.slice(2)}` }), name),
      element("td", { class: "short" }, element("span", { class: `mark mark-${kind.mark}` }), kind.title),
      element("td", { class: "text" }, event.words));
  }
}
