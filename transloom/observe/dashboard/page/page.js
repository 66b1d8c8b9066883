// The page: its contents are derived from the view, which is stored in the address's #fragment.
//
//   fragment ⇄ view ─▶ table, curves, differences, events; or one run; and a step over either
//                ▲        │
//                └─change─┘        changes of the store draw the same view again

import { answersOf } from "./answers.js";
import { ChartPanel } from "./chart_panel.js";
import { Colours, lineOf } from "./colours.js";
import { Differences } from "./differences.js";
import { element } from "./drawing/elements.js";
import { fill, setText } from "./dom.js";
import { EventList } from "./events.js";
import { firstChoice } from "./filters.js";
import { RunPage } from "./run_page.js";
import { RunsTable } from "./runs_table.js";
import { StepPanel } from "./step_panel.js";
import { Store } from "./store.js";
import { newView, parseView, writeView } from "./view_state.js";
import { counted } from "./drawing/numbers.js";
import { followTheme } from "./drawing/theme.js";
import { moment } from "./words.js";

const SHOWN_AT_FIRST = 5;

class Page {
  #store = new Store(answersOf(document));
  #colours = new Colours();
  #view = newView();
  #drawing = null;
  #later = null;
  #drawn = { at: 0, took: 0 }; // the last drawing, in milliseconds
  #chosen = []; // the runs that are shown until the user chooses
  #main = document.querySelector("main");
  #link = document.getElementById("link");
  #runsView;
  #table;
  #panel;
  #differences = new Differences();
  #events;
  #run;
  #step;

  async start() {
    const shared = {
      store: this.#store, colours: this.#colours,
      change: (changes) => this.change(changes),
      open: (id, step, measure) => this.#open(id, step, measure),
    };
    this.#table = new RunsTable(shared);
    this.#panel = new ChartPanel(shared);
    this.#events = new EventList(shared);
    this.#run = new RunPage(shared);
    this.#step = new StepPanel(shared);
    this.#runsView = element("div", {}, element("h1", { class: "unseen" }, "Runs"), this.#table.root, this.#panel.root,
      element("section", { class: "part", "aria-label": "Recipe differences" }, element("h2", {}, "Recipe differences"), this.#differences.root),
      element("section", { class: "part", "aria-label": "Events" }, element("h2", {}, "Events"), this.#events.root));
    document.body.append(this.#step.root);
    followTheme(() => {
      this.#panel.redraw();
      this.#run.redraw();
    });
    window.addEventListener("hashchange", () => this.#go(parseView(location.hash)));
    this.#store.onChange(() => this.#drawLater());
    this.#view = parseView(location.hash);
    if (!location.hash && this.#store.frozen?.run) this.#view.run = this.#store.frozen.run;
    try {
      await this.#store.start();
    } catch (error) {
      fill(this.#main, element("p", { class: "problem", role: "alert" }, error.message));
    }
  }

  // Changes the view: fields with new values, or a function from the view to them.
  change(changes) {
    const made = typeof changes === "function" ? changes(this.#view) : changes;
    this.#view = { ...this.#view, ...made };
    history.replaceState(null, "", writeView(this.#view) || location.pathname + location.search);
    this.#drawSoon();
  }

  #go(view) {
    const isElsewhere = view.run !== this.#view.run;
    // Returning to the table restores its former view.
    this.#view = location.hash.length > 1 ? { ...view, ...(isElsewhere && this.#kept(view)) }
      : { ...this.#view, run: null, zoom: null, step: null };
    if (!isElsewhere) return this.#drawSoon();
    history.replaceState(null, "", writeView(this.#view) || location.pathname + location.search);
    this.#draw();
    window.scrollTo(0, 0);
  }

  #kept(view) {
    const { runs, filter, sort, columns, x, smooth, log, charts } = this.#view;
    const wasSaid = Object.fromEntries(Object.entries(view).filter(([name, value]) => (
      JSON.stringify(value) !== JSON.stringify(newView()[name]))));
    return { runs, filter, sort, columns, x, smooth, log, charts, ...wasSaid };
  }

  async #open(id, step, measure) {
    this.change({ step: { id, step: await this.#step.stepOf(id, step, measure) } });
  }

  #drawSoon() {
    this.#drawing ??= requestAnimationFrame(() => {
      this.#drawing = null;
      this.#draw();
    });
  }

  // New data may arrive faster than a slow machine draws: drawing takes at most a quarter of the time.
  #drawLater() {
    const wait = this.#drawn.at + 3 * this.#drawn.took - performance.now();
    this.#later ??= setTimeout(() => {
      this.#later = null;
      this.#drawSoon();
    }, Math.max(0, wait));
  }

  #draw() {
    const begun = performance.now();
    this.#drawView();
    const at = performance.now();
    this.#drawn = { at, took: at - begun };
  }

  #drawView() {
    this.#sayLink();
    const { run } = this.#view;
    const wanted = run ? this.#run.root : this.#runsView;
    if (this.#main.firstElementChild !== wanted) this.#main.replaceChildren(wanted);
    if (run) {
      this.#colours.assign([run]);
      this.#run.show(this.#view);
      document.title = `${this.#store.row(run)?.standing.name ?? run} · transloom`;
    } else this.#drawRuns();
    this.#step.show(this.#view.step);
  }

  #drawRuns() {
    const selected = (this.#view.runs ?? this.#firstChoice()).filter((id) => this.#store.row(id));
    this.#colours.assign(selected);
    const visible = this.#table.show(this.#store.runs, this.#view, selected, this.#store.problems);
    const ids = visible.map(({ id }) => id).filter((id) => selected.includes(id));
    this.#panel.show(ids, this.#view);
    const rows = ids.map((id) => ({ ...this.#store.row(id), colour: lineOf(this.#colours.place(id)).colour }));
    this.#differences.show(rows);
    this.#events.show(rows.map(({ id, standing, colour }) => (
      { id, name: standing.name, colour, events: this.#store.details(id)?.events ?? [] })));
    document.title = `${counted(this.#store.runs.length, "run")} · transloom`;
  }

  #firstChoice() {
    this.#chosen = firstChoice(this.#store.runs, this.#chosen, SHOWN_AT_FIRST);
    return this.#chosen;
  }

  #sayLink() {
    const { frozen, link, folder } = this.#store;
    setText(document.getElementById("folder"), folder);
    this.#link.className = frozen ? "frozen" : link;
    setText(this.#link, frozen ? `report of ${moment(frozen.time)}`
      : link === "lost" ? "connection lost: retrying" : "live");
  }
}

new Page().start();
