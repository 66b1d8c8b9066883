// Events of a run: restarts, changes of the number of ranks, skipped and repeated steps, slow ranks,
// stops.
// They are shown as marks on the curves, and as a list.

import { element } from "./drawing/elements.js";
import { fill } from "./dom.js";
import { whole } from "./words.js";

const KINDS = {
  resumed: { name: "restart", colour: "--mark-restart" },
  resized: { name: "resize", colour: "--mark-resize" },
  skipped: { name: "skip", colour: "--mark-skip" },
  repeated: { name: "repeat", colour: "--mark-repeat" },
  preempted: { name: "stop", colour: "--mark-stop" },
  slow_rank: { name: "slow rank", colour: "--mark-skip" },
  rank_recovered: { name: "no longer slow", colour: "--mark-stop" },
  corruption_found: { name: "corruption", colour: "--mark-skip" },
  replay_mismatch: { name: "mismatch", colour: "--mark-skip" },
};
const MOST = 500; // rows of the list; a run may skip thousands of steps

export function kindOf(event) {
  return KINDS[event.event] ?? { name: event.event.replaceAll("_", " "), colour: "--mark-stop" };
}

// A list of events, newest first. `open(id, step)` opens the step of an event.
export class EventList {
  root = element("div", { class: "scrolls tall", tabindex: "0", role: "region", "aria-label": "List of events" });
  #open;
  #shown = "";

  constructor(open) {
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
      fill(this.root, element("p", { class: "quiet" }, "No events: no restart, resize, skip, repeat, slow rank or stop."));
      return;
    }
    const rest = all.length > MOST ? `, the newest ${whole(MOST)} of ${whole(all.length)}` : "";
    fill(this.root, element("table", { class: "plain" },
      element("caption", { class: "unseen" }, `Events${rest}`),
      element("thead", {}, element("tr", {}, ...["step", "run", "event", "description"].map(
        (name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...all.slice(0, MOST).map((row) => this.#row(row)))),
    rest && element("p", { class: "quiet" }, `Showing${rest.slice(1)}.`));
  }

  #row({ id, name, colour, event }) {
    const kind = kindOf(event);
    return element("tr", {},
      element("td", { class: "number" }, element("button", {
        type: "button", class: "link", click: () => this.#open(id, event.step),
        "aria-label": `open step ${event.step} of ${name}`,
      }, whole(event.step))),
      element("td", { class: "short", title: name }, element("span", { class: `swatch ${colour.slice(2)}` }), name),
      element("td", { class: "short" }, element("span", { class: `mark ${kind.colour.slice(2)}` }), kind.name),
      element("td", { class: "text" }, event.words));
  }
}
