// The page of one run: its curves, and all information of its folder.

import { ChartPanel } from "./chart_panel.js";
import { lineOf } from "./colours.js";
import { element } from "./drawing/elements.js";
import { fill, setText } from "./dom.js";
import { EventList } from "./events.js";
import { NodeCharts } from "./node_charts.js";
import { TimeLapse } from "./time_lapse.js";
import * as parts from "./run_parts.js";
import { scoreTitle, scoreValue, span, stepsOf } from "./words.js";

// Each part: its name, the function that makes it, and the response fields that it shows. Three
// parts without a function are made here.
const PARTS = [
  ["Status", parts.standing, ["standing", "card"]],
  ["Events"],
  ["Ranks and data workers", parts.vitals, ["standing"]],
  ["Validations", parts.validations, ["validations"]],
  ["Test sets", parts.testScores, ["test_scores"]],
  ["Nodes"],
  ["Samples", parts.samples, ["samples"]],
  ["Time-lapse"],
  ["Checkpoints", parts.checkpoints, ["standing"]],
  ["Commands to reproduce it", parts.commands, ["commands"]],
  ["Dataset cleaning", parts.cleaning, ["cleaning"]],
  ["Recipe", parts.recipe, ["standing"]],
  ["Environment", parts.environment, ["environment"]],
  ["Hashes", parts.hashes, ["hashes"]],
  ["Log", parts.log, ["log"]],
];
const WIDE = ["Nodes", "Test sets", "Samples", "Time-lapse"];

export class RunPage {
  #store;
  #colours;
  #reading = element("progress", { "aria-label": "Reading the run" });
  #notice = element("p", { class: "quiet", role: "status" });
  #title = element("h1", {});
  #head = element("p", { class: "headline" });
  #panel;
  #events;
  #nodes = new NodeCharts();
  #timeLapse = new TimeLapse();
  #sections = new Map(); // by name: {root, body, shown}
  #shownNodes = null;
  #shownLapse = null; // the run whose time-lapse was requested, and its step

  constructor({ store, colours, change, open }) {
    this.#store = store;
    this.#colours = colours;
    this.#panel = new ChartPanel({ store, colours, change, open });
    this.#events = new EventList({ store, open });
    const bodies = {
      Events: this.#events.root, Nodes: this.#nodes.root, "Time-lapse": this.#timeLapse.root };
    const made = PARTS.map(([name]) => this.#section(name, bodies[name] ?? element("div", {})));
    const links = PARTS.map(([name]) => this.#sections.get(name).link);
    this.#hide("Time-lapse", true); // until the run has a time-lapse
    this.root = element("div", { class: "run" },
      element("div", { class: "title" }, element("a", { href: "#", class: "back" }, "← all runs"), this.#title, this.#head,
        element("div", { class: "reading" }, this.#reading, this.#notice)),
      element("nav", { class: "parts", "aria-label": "Parts of this run" }, ...links),
      this.#panel.root, ...made);
  }

  show(view) {
    const id = view.run;
    const row = this.#store.row(id);
    this.#panel.show([id], view);
    setText(this.#title, row?.standing.name ?? id);
    const details = this.#store.details(id);
    this.#showReading(id, row);
    const isThere = Boolean(row && details && !details.failed);
    this.root.classList.toggle("unread", !isThere);
    if (!isThere) {
      setText(this.#head, row ? details?.failed ?? "" : "This folder has no such run.");
      return;
    }
    fill(this.#head, ...headline(row.standing));
    const answer = { ...details, standing: row.standing, facts: this.#store.facts };
    for (const [name, make, fields] of PARTS.filter(([, make]) => make)) {
      this.#showPart(name, make, answer, fields.map((field) => answer[field]));
    }
    this.#events.show([{ id, name: row.standing.name, colour: lineOf(this.#colours.place(id)).colour, events: details.events }]);
    this.#showNodes(id);
    this.#showTimeLapse(id, row.standing.step);
  }

  redraw() {
    this.#panel.redraw();
    this.#nodes.redraw();
  }

  // Shows the loading progress of the run.
  #showReading(id, row) {
    const { done, all, missing } = this.#store.progress(id);
    this.#reading.hidden = !row || done === all;
    this.#reading.max = all;
    this.#reading.value = done;
    setText(this.#notice, row && missing.length ? `Reading ${missing.join(" and ")} …` : "");
    this.#notice.hidden = this.#notice.textContent === "";
  }

  // Requests the usage of nodes, at each visit and then periodically.
  async #showNodes(id) {
    const now = Date.now();
    if (this.#shownNodes?.id === id && (this.#store.frozen || now - this.#shownNodes.at < 30_000)) return;
    this.#shownNodes = { id, at: now };
    try {
      this.#nodes.show(await this.#store.nodes(id));
    } catch (error) {
      this.#nodes.show({ problem: error.message });
    }
  }

  // Requests the time-lapse once, and again when the run has reached a step with another
  // translation.
  async #showTimeLapse(id, step) {
    const moment = `${id} ${Math.floor(2 * Math.log2(step + 1))}`;
    if (this.#shownLapse === moment) return;
    this.#shownLapse = moment;
    let answer;
    try {
      answer = await this.#store.timeLapse(id);
    } catch (error) {
      answer = { sentences: {}, problems: [error.message] };
    }
    if (this.#shownLapse !== moment) return; // the user has opened another run
    this.#timeLapse.show(answer);
    this.#hide("Time-lapse", this.#timeLapse.isEmpty);
  }

  #hide(name, isHidden) {
    const { root, link } = this.#sections.get(name);
    root.hidden = link.hidden = isHidden;
  }

  #section(name, body) {
    const root = sectionOf(name, body, WIDE.includes(name));
    const link = element("button", { type: "button", class: "link", click: () => goTo(root) }, name);
    this.#sections.set(name, { root, body, link, shown: null });
    return root;
  }

  #showPart(name, make, answer, shown) {
    const section = this.#sections.get(name);
    const key = JSON.stringify(shown);
    if (section.shown === key) return;
    section.shown = key;
    const scrolled = [...section.body.querySelectorAll(".scrolls")].map((box) => box.scrollTop);
    const made = make(answer);
    fill(section.body, ...made);
    section.body.querySelectorAll(".scrolls").forEach((box, n) => { box.scrollTop = scrolled[n] ?? 0; });
    section.root.hidden = section.link.hidden = made.length === 0;
  }
}

function headline(run) {
  const scores = Object.entries(run.scores ?? {}).map(([name, score]) => `${scoreTitle(name, score)} ${scoreValue(name, score.value)}`);
  const left = run.seconds_left ? `${span(run.seconds_left)} left` : null;
  return [element("span", { class: `state ${run.state}` }, run.state),
    ...[`step ${stepsOf(run.step, run.max_steps)}`, ...scores, left].filter(Boolean).map((text) => element("span", {}, text))];
}

function sectionOf(name, body, isWide) {
  return element("section", { class: isWide ? "part wide" : "part", "aria-label": name },
    element("h2", { tabindex: "-1" }, name), body);
}

function goTo(section) {
  section.scrollIntoView();
  section.querySelector("h2").focus({ preventScroll: true });
}
