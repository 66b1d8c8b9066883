// The charts of some runs, with the controls of all charts: axis, smoothing, zoom, choice of
// charts.
//
// Every change calls `show` again; charts are kept and receive new data.

import { ChartGrid } from "./chart_grid.js";
import { lineOf } from "./colours.js";
import { element } from "./drawing/elements.js";
import { fill, setText } from "./dom.js";
import { taskOf } from "./filters.js";
import { charts, measures, shown } from "./measures.js";
import { AXES, extent, scorePoints, smoothed, stepAtX, widened, xAtStep, xs } from "./series.js";
import { toggled, X_AXES } from "./view_state.js";
import { whole } from "./words.js";

export class ChartPanel {
  #store;
  #colours;
  #change;
  #open;
  #measures = new Map(); // the measures of the charts, by title
  #grid = new ChartGrid();
  #note = element("p", { class: "quiet", role: "status" });
  #axis;
  #smooth;
  #smoothed = element("output", {});
  #whole;
  #chosen = element("div", { class: "choices" });
  #content = null;

  // `change(changes of the view)`, `open(run, step)`.
  constructor({ store, colours, change, open }) {
    this.#store = store;
    this.#colours = colours;
    this.#change = change;
    this.#open = open;
    this.#axis = element("select", { change: () => change({ x: this.#axis.value, zoom: null }) },
      ...X_AXES.map((axis) => element("option", { value: axis }, `by ${AXES[axis].name}`)));
    this.#smooth = element("input", {
      type: "range", min: "0", max: "0.99", step: "0.01",
      input: () => change({ smooth: Number(this.#smooth.value) }),
    });
    this.#whole = element("button", { type: "button", click: () => change({ zoom: null }) }, "Show all");
    this.root = element("section", { class: "curves", "aria-label": "Curves" },
      element("h2", { class: "unseen" }, "Curves"),
      element("div", { class: "controls" },
        element("label", {}, element("span", { class: "unseen" }, "horizontal axis"), this.#axis),
        element("label", {}, "smooth ", this.#smooth, this.#smoothed),
        element("details", { class: "menu" }, element("summary", {}, "Charts"), this.#chosen),
        this.#whole, this.#note),
      this.#grid.root);
  }

  // `ids`: the runs, in the order of the table.
  show(ids, view) {
    this.#content = this.#gather(ids, view);
    this.#axis.value = view.x;
    if (Number(this.#smooth.value) !== view.smooth) this.#smooth.value = String(view.smooth);
    setText(this.#smoothed, view.smooth.toFixed(2));
    this.#whole.hidden = view.zoom === null;
    const all = measures(this.#store.facts, this.#scores(), this.#smooths(ids));
    const wanted = shown(all, view.charts);
    const drawn = charts(wanted, this.#content.ready).filter((measure) => this.#hasData(measure));
    this.#choices(all, drawn);
    this.#measures = new Map(drawn.map((measure) => [measure.title, measure]));
    this.#grid.show(drawn.map((measure) => [this.#formOf(measure), this.#chartOf(measure, view)]));
    setText(this.#note, this.#noteOf(ids));
  }

  redraw() {
    this.#grid.redraw();
  }

  // Collects the data of each run: its columns, scores and events, as far as they have arrived.
  #gather(ids, view) {
    const runs = ids.map((id) => {
      const details = this.#store.details(id);
      const curves = this.#curvesOf(id, view);
      const place = lineOf(this.#colours.place(id));
      const row = this.#store.row(id);
      const units = row ? { task: taskOf(row), lossUnit: row.standing.loss_unit, smooths: row.standing.smooths_labels } : {};
      return { id, name: row?.standing.name ?? id, ...units, curves, details, ...place };
    });
    const ready = runs.filter(({ curves }) => curves?.columns?.step.length);
    const ends = ready.flatMap(({ id, curves }) => {
      const columns = this.#store.curves(id)?.columns ?? curves.columns;
      return extent(xs(columns, view.x)) ?? [];
    });
    const failed = runs.map(({ curves, details }) => curves?.failed ?? details?.failed).filter(Boolean);
    return { ready, extent: widened(extent(ends)), failed, waiting: runs.some(({ curves }) => !curves) };
  }

  #curvesOf(id, view) {
    const whole = this.#store.curves(id);
    if (!whole?.thinned || !view.zoom) return whole;
    const [from, to] = view.zoom.map((x) => stepAtX(whole.columns, view.x, x));
    return this.#store.curves(id, [Math.max(1, from), Math.max(1, to)]);
  }

  #smooths(ids) {
    return ids.some((id) => this.#store.row(id)?.standing.smooths_labels);
  }

  // The validations' scores by name; a score with a decoding is preferred to one without.
  #scores() {
    const all = this.#content.ready.flatMap(({ details }) => (
      (details?.validations ?? []).flatMap(({ scores }) => Object.entries(scores))));
    const found = new Map();
    for (const [name, score] of all) if (!found.get(name)?.decoding) found.set(name, score);
    return found;
  }

  #hasData(measure) {
    const lines = this.#linesOf(measure);
    if (measure.score) return lines.length > 0;
    return lines.some(({ curves }) => (
      curves.columns[measure.key]?.some((value) => value !== null)));
  }

  #formOf({ title, unit, key }) {
    return {
      title, unit,
      log: () => this.#change((view) => ({ log: toggled(view.log, key) })),
      zoom: (ends) => this.#change({ zoom: ends && inside(ends, this.#content.extent) }),
      pick: (line, x) => this.#pick(title, line, x),
    };
  }

  #pick(title, line, x) {
    const measure = this.#measures.get(title);
    const run = this.#linesOf(measure)[line];
    const step = stepAtX(run.curves.columns, this.#content.view.x, x);
    this.#open(run.id, step, measure.key);
  }

  #linesOf(measure) {
    const runs = this.#content.ready.filter(({ id }) => measure.runs.includes(id));
    if (!measure.score) return runs;
    return runs.filter(({ details }) => (
      scorePoints(details?.validations ?? [], measure.score).length));
  }

  #chartOf(measure, view) {
    this.#content.view = view;
    const log = view.log.includes(measure.key);
    const lines = this.#linesOf(measure).map((run) => (
      measure.score ? scoreLine(run, measure, view) : stepLine(run, measure, view)));
    const { facts } = this.#store;
    const marks = this.#content.ready.flatMap((run) => (run.details?.events ?? []).map((event) => ({
      x: xAtStep(run.curves.columns, view.x, event.step),
      colour: `--mark-${facts.kindOf(event).mark}`,
      words: `${run.name}: ${facts.kindOf(event).title} at step ${whole(event.step)}`,
    })));
    const axis = AXES[view.x];
    return { lines, marks, axis, extent: this.#content.extent, zoom: view.zoom, log };
  }

  #choices(all, wanted) {
    const keys = all.map(({ key, title }) => `${key} ${title}`).join();
    if (this.#chosen.dataset.keys !== keys) {
      this.#chosen.dataset.keys = keys;
      fill(this.#chosen, ...all.map(({ key, title, score }) => element("label", {},
        element("input", { type: "checkbox", value: key, change: () => this.#choose() }),
        title, score && element("small", {}, " validation"))));
    }
    const on = new Set(wanted.map(({ key }) => key));
    for (const box of this.#chosen.querySelectorAll("input")) box.checked = on.has(box.value);
  }

  #choose() {
    const boxes = [...this.#chosen.querySelectorAll("input:checked")];
    this.#change({ charts: boxes.map((box) => box.value) });
  }

  #noteOf(ids) {
    const { ready, failed, waiting } = this.#content;
    if (!ids.length) return "Select runs in the table to see their curves.";
    if (failed.length) return failed[0];
    if (waiting) return "Reading curves …";
    if (!ready.length) return "No step has been recorded yet.";
    const thinned = ready.filter(({ curves }) => curves.thinned);
    if (!thinned.length) return "";
    const most = Math.max(...thinned.map(({ curves }) => {
      const { step } = curves.columns;
      return Math.ceil((step.at(-1) - step[0] + 1) / step.length);
    }));
    const finer = this.#store.frozen ? "" : " Zoom in to see each step.";
    return `Thinned: each point represents up to ${whole(most)} steps, and the band their lowest and highest values.${finer}`;
  }
}

function stepLine(run, measure, view) {
  const { columns, thinned } = run.curves;
  const values = columns[measure.key];
  const isSmooth = view.smooth > 0 && measure.format !== "whole";
  const room = (thinned || measure.band) && measure.high && columns[measure.high];
  return {
    name: run.name, colour: run.colour, dash: run.dash, xs: xs(columns, view.x),
    ys: isSmooth ? smoothed(values, view.smooth) : values,
    raw: isSmooth ? values : null,
    low: room && measure.low ? columns[measure.low] : null,
    high: room ? columns[measure.high] : null,
  };
}

function scoreLine(run, measure, view) {
  const points = scorePoints(run.details.validations, measure.score);
  const whole = run.curves.columns;
  return {
    name: run.name, colour: run.colour, dash: run.dash, raw: null, low: null, high: null,
    xs: points.map(({ step }) => xAtStep(whole, view.x, step)), ys: points.map(({ value }) => value),
  };
}

// The part of a range within another range; null if it covers that range.
function inside([from, to], ends) {
  if (!ends) return null;
  const room = ends[1] - ends[0];
  const width = Math.max(to - from, room * 1e-6);
  const start = Math.max(ends[0], Math.min(from, ends[1] - width));
  const stop = Math.min(ends[1], start + width);
  return stop - start >= room * 0.999 ? null : [start, stop];
}
