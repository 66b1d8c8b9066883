// One chart: lines over a common axis, their marks, and the values at the cursor. It draws with
// uPlot and does not depend on runs.
//
//   chart.show({ lines, marks, axis, extent, zoom, log })
//
// A line is {name, colour, dash, xs, ys, raw, low, high}: `ys` is drawn, `raw` faintly behind it,
// and the area between `low` and `high` is filled. A mark is {x, colour, words}.

import { colour } from "./colours.js";
import { element } from "./drawing/elements.js";
import { fill, table } from "./dom.js";
import { extent, firstFrom, lonely, nearest, positive, readable } from "./series.js";
import { number, short } from "./words.js";

const HEIGHT = 210;
const REACH = 14; // radius in pixels in which a click selects a point
const ROWS = 60;
const SHORT = 40; // lines with at most this many points show all of them
const MOST_LINES = 40; // maximum lines of marks: more would cover the curves

export class Chart {
  #plot = null;
  #content = null;
  #host;
  #readout;
  #numbers;
  #logButton;
  #isSeen = false; // true while on the screen; otherwise drawn when it appears there
  #isStale = false;
  #at = { line: 0, x: null }; // position of the keyboard's or the mouse's cursor
  #tell;

  // `tell`: {zoom([from, to] | null), pick(line, x), cursor(x), log()}.
  constructor({ title, unit, ...tell }) {
    this.title = title;
    this.unit = unit;
    this.#tell = tell;
    this.#readout = element("ul", { class: "readout" });
    this.#numbers = element("details", { class: "numbers", toggle: () => this.#fillNumbers() },
      element("summary", {}, "Numbers", element("span", { class: "unseen" }, ` of ${title}`)));
    this.#host = element("div", {
      class: "plot", tabindex: "0", role: "slider", "aria-label": `${title}, use the arrow keys`,
      "aria-valuenow": "0", "aria-valuetext": "no point",
      keydown: (event) => this.#key(event),
      blur: () => this.#point(null),
    });
    this.#logButton = tell.log ? element("button", {
      type: "button", class: "small", "aria-pressed": "false", click: tell.log,
      "aria-label": `logarithmic scale of ${title}`,
    }, "log") : null;
    this.root = element("figure", { class: "chart" },
      element("figcaption", {}, element("h3", {}, title), element("small", {}, unit), this.#logButton),
      this.#host, this.#readout, this.#numbers);
    new ResizeObserver(() => this.#resize()).observe(this.#host);
    new IntersectionObserver(([entry]) => this.#comesOrGoes(entry.isIntersecting), { rootMargin: "100px" })
      .observe(this.#host);
    window.addEventListener("beforeprint", () => this.#comesOrGoes(true));
  }

  show(content) {
    const isOther = !this.#plot || formOf(this.#content) !== formOf(content);
    this.#content = content;
    this.#logButton?.setAttribute("aria-pressed", String(content.log));
    if (!this.#isSeen) this.#isStale = true;
    else if (isOther) this.redraw();
    else this.#plot.setData(this.#data());
    this.#readOut();
    if (this.#numbers.open) this.#fillNumbers();
  }

  // Draws again after lines were added or removed, or the colours have changed.
  redraw() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#isStale = !this.#isSeen;
    if (this.#isStale) return;
    const width = this.#host.clientWidth;
    if (!width || !this.#content) return;
    this.#plot = new uPlot(this.#options(width), this.#data(), this.#host);
    this.#plot.over.addEventListener("click", (event) => this.#click(event));
  }

  // Shows the values at a position of the axis, as the other charts do; null: at the end.
  pointAt(x) {
    this.#at.x = x;
    this.#putCursor();
    this.#readOut();
  }

  #putCursor(top = -10) {
    const left = this.#at.x === null ? -10 : this.#plot?.valToPos(this.#at.x, "x");
    this.#plot?.setCursor({ left, top }, false);
  }

  #comesOrGoes(isSeen) {
    this.#isSeen = isSeen;
    if (isSeen && this.#isStale) this.redraw();
  }

  #resize() {
    const width = this.#host.clientWidth;
    if (!this.#plot) this.redraw();
    else if (width) this.#plot.setSize({ width, height: HEIGHT });
  }

  #data() {
    const { lines, log } = this.#content;
    const shownOf = (values) => (log ? positive(values) : values);
    const tables = lines.map((line) => {
      const take = (values) => values.filter((_, n) => line.xs[n] !== null);
      return [take(line.xs), ...columnsOf(line).map((values) => shownOf(take(values)))];
    });
    if (tables.length === 0) return [[], []];
    return tables.length === 1 ? tables[0] : uPlot.join(tables);
  }

  #options(width) {
    const { lines, log, axis } = this.#content;
    const series = [{}];
    const bands = [];
    for (const line of lines) {
      const stroke = colour(line.colour);
      const main = { stroke, width: 1.6, dash: line.dash, points: pointsOf(line, stroke) };
      if (line.raw) series.push({ stroke: stroke + "55", width: 1, points: { show: false } });
      series.push(main);
      const place = series.length - 1;
      const unseen = { stroke: "transparent", width: 0, points: { show: false } };
      if (line.low) series.push({ ...unseen });
      if (line.high) series.push({ ...unseen });
      if (line.high) bands.push({ series: [series.length - 1, line.low ? place + 1 : place], fill: stroke + "30" });
    }
    const quiet = colour("--quiet");
    const grid = { stroke: colour("--grid"), width: 1 };
    const font = '11px system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif';
    const ticks = { show: false };
    const values = (plot, places) => places.map((place) => (place === null ? "" : short(place)));
    return {
      width, height: HEIGHT, series, bands, padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: {
        drag: { x: true, y: false, setScale: false }, points: { size: 7 },
        bind: { dblclick: () => () => this.#tell.zoom(null) },
      },
      scales: {
        x: { time: false, range: () => this.#content.zoom ?? this.#content.extent ?? [0, 1] },
        y: { distr: log ? 3 : 1 },
      },
      axes: [
        { stroke: quiet, grid, ticks, font, size: 26, gap: 4, space: 60, values: axis.format ?? values },
        { stroke: quiet, grid, ticks, font, size: 54, gap: 4, space: 32, values },
      ],
      hooks: {
        setSelect: [(plot) => this.#selected(plot)],
        setCursor: [(plot) => this.#moved(plot)],
        setScale: [({ cursor }) => this.#at.x !== null && this.#putCursor(cursor.top)], // it keeps its point
        drawClear: [(plot) => this.#drawMarks(plot)],
      },
    };
  }

  #drawMarks(plot) {
    const { top, height, left, width } = plot.bbox;
    const context = plot.ctx;
    context.save();
    context.lineWidth = devicePixelRatio;
    const places = new Map(); // marks at the same pixel are drawn once
    for (const { x, colour: name } of this.#content.marks) {
      const at = Math.round(plot.valToPos(x, "x", true)) + 0.5;
      if (at >= left && at <= left + width + 1) places.set(`${at} ${name}`, [at, name]);
    }
    const isFew = places.size <= MOST_LINES;
    for (const [at, name] of places.values()) {
      context.strokeStyle = context.fillStyle = colour(name);
      context.globalAlpha = 0.55;
      context.beginPath();
      context.moveTo(at, top);
      context.lineTo(at, isFew ? top + height : top);
      context.stroke();
      context.globalAlpha = 1;
      const size = (isFew ? 4 : 1.5) * devicePixelRatio;
      context.beginPath();
      context.moveTo(at - size, top);
      context.lineTo(at + size, top);
      context.lineTo(at, top + 6 * devicePixelRatio);
      context.fill();
    }
    context.restore();
  }

  #selected(plot) {
    if (plot.select.width < 4) return;
    const ends = [plot.select.left, plot.select.left + plot.select.width];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.#tell.zoom(ends.map((left) => plot.posToVal(left, "x")));
  }

  #moved(plot) {
    const { left } = plot.cursor; // -10: outside the chart; a point out of sight is below 0, too
    if (left === -10 || left >= 0) this.#point(left < 0 ? null : plot.posToVal(left, "x"));
  }

  #point(x) {
    if (x === this.#at.x) return;
    this.#at.x = x;
    this.#readOut();
    this.#tell.cursor?.(x);
  }

  #click(event) {
    const { left, top } = this.#plot.over.getBoundingClientRect();
    const found = this.#closest(event.clientX - left, event.clientY - top);
    if (found) this.#tell.pick?.(found.line, found.x);
  }

  // The drawn point closest to a position, in pixels.
  #closest(left, top) {
    const plot = this.#plot;
    const from = plot.posToVal(left - REACH, "x");
    const to = plot.posToVal(left + REACH, "x");
    let best = null;
    this.#content.lines.forEach((line, place) => {
      const known = [line.ys, line.raw, line.high].filter(Boolean);
      let n = firstFrom(line.xs, from);
      if (n === line.xs.length || line.xs[n] > to) n = nearest(line.xs, plot.posToVal(left, "x"));
      for (; n < line.xs.length && (line.xs[n] <= to || best === null); n++) {
        for (const values of known) {
          if (values[n] === null || values[n] === undefined) continue;
          const away = Math.hypot(
            plot.valToPos(line.xs[n], "x") - left, plot.valToPos(values[n], "y") - top);
          if (!best || away < best.away) best = { away, line: place, x: line.xs[n] };
        }
      }
    });
    return best;
  }

  #readOut() {
    const { lines, marks, axis } = this.#content;
    const x = this.#at.x;
    const items = lines.map((line) => {
      const n = x === null ? line.xs.length - 1 : nearest(line.xs, x);
      return { name: line.name, colour: line.colour, value: n < 0 ? null : line.ys[n] };
    });
    const shown = items.map(({ name, colour: swatch, value }) => element("li", {},
      element("span", { class: `swatch ${swatch.slice(2)}` }), element("span", {}, name),
      element("b", {}, number(value))));
    const near = x === null || !this.#plot ? [] : marks.filter((mark) => Math.abs(
      this.#plot.valToPos(mark.x, "x") - this.#plot.valToPos(x, "x")) < 5);
    const place = x === null ? [] : [element("li", { class: "place" }, `${axis.name} ${(axis.said ?? number)(x)}`)];
    fill(this.#readout, ...place, ...shown,
      ...near.slice(0, 3).map((mark) => element("li", { class: "place" }, mark.words)));
    this.#sayPlace(items, near);
  }

  #sayPlace(items, near) {
    const { extent: ends, axis } = this.#content;
    const x = this.#at.x;
    this.#host.setAttribute("aria-valuemin", String(ends?.[0] ?? 0));
    this.#host.setAttribute("aria-valuemax", String(ends?.[1] ?? 0));
    this.#host.setAttribute("aria-valuenow", String(x ?? ends?.[1] ?? 0));
    const values = items.map(({ name, value }) => `${name} ${number(value)}`);
    const told = [x === null ? "newest" : `${axis.name} ${(axis.said ?? number)(x)}`, ...values, ...near.map((mark) => mark.words)];
    this.#host.setAttribute("aria-valuetext", told.join(", "));
  }

  // Arrow keys move from point to point, up and down from line to line; + and − zoom; with shift
  // the arrows move the visible part; Enter opens the step; Escape shows everything.
  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.#content?.lines.length) return;
    const { lines, extent: ends, zoom } = this.#content;
    const [from, to] = zoom ?? ends ?? [0, 1];
    const line = lines[Math.min(this.#at.line, lines.length - 1)];
    const here = this.#at.x === null ? line.xs.length - 1 : nearest(line.xs, this.#at.x);
    const x = line.xs[here];
    const go = (n) => this.#goTo(line, Math.max(0, Math.min(line.xs.length - 1, n)));
    const page = Math.max(1, Math.round(line.xs.length / 20));
    const pan = (share) => this.#tell.zoom([from + share * (to - from), to + share * (to - from)]);
    const scale = (by) => this.#tell.zoom([x - (x - from) * by, x + (to - x) * by]);
    const actions = {
      ArrowLeft: () => (event.shiftKey ? pan(-0.25) : go(here - 1)),
      ArrowRight: () => (event.shiftKey ? pan(0.25) : go(here + 1)),
      PageDown: () => go(here + page), PageUp: () => go(here - page),
      Home: () => go(line.xs.findIndex((known) => known !== null)), End: () => go(line.xs.length - 1),
      ArrowUp: () => this.#chooseLine(-1, x), ArrowDown: () => this.#chooseLine(1, x),
      "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2),
      Escape: () => this.#tell.zoom(null), 0: () => this.#tell.zoom(null),
      Enter: () => this.#tell.pick?.(lines.indexOf(line), x),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  #chooseLine(by, x) {
    const { lines } = this.#content;
    this.#at.line = (this.#at.line + by + lines.length) % lines.length;
    const line = lines[this.#at.line];
    this.#goTo(line, nearest(line.xs, x));
  }

  #goTo(line, n) {
    const plot = this.#plot;
    if (!plot || line.xs[n] === null || line.xs[n] === undefined) return;
    const top = line.ys[n] === null ? -10 : plot.valToPos(line.ys[n], "y");
    plot.setCursor({ left: plot.valToPos(line.xs[n], "x"), top }, false);
    this.#point(line.xs[n]);
  }

  #fillNumbers() {
    if (!this.#numbers.open || !this.#content) return;
    const { lines, axis, zoom } = this.#content;
    const inside = (x) => x !== null && (!zoom || (x >= zoom[0] && x <= zoom[1]));
    const longest = lines.reduce((most, { xs }) => (xs.length > most.length ? xs : most), []);
    const places = readable(longest.filter(inside), ROWS);
    const rows = places.map((x) => [(axis.said ?? number)(x), ...lines.map((line) => {
      const ends = extent(line.xs);
      return ends && x >= ends[0] && x <= ends[1] ? number(line.ys[nearest(line.xs, x)]) : "";
    })]);
    const caption = `${this.title}: ${places.length} of the shown points`;
    const made = table(caption, [axis.name, ...lines.map(({ name }) => name)], rows);
    this.#numbers.replaceChildren(this.#numbers.firstElementChild, made);
  }
}

function columnsOf(line) {
  return [line.raw, line.ys, line.low, line.high].filter(Boolean);
}

// Points of a short line; of a long one only those without a line to a neighbour, invisible
// otherwise.
function pointsOf(line, stroke) {
  const points = { size: 5, fill: stroke };
  if (isShort(line)) return { ...points, show: true };
  return { ...points, show: false, filter: (plot, series) => lonely(plot.data[series]) };
}

function isShort(line) {
  return line.ys.length <= SHORT;
}

// The properties of a chart whose change needs a new plot, not only new data.
function formOf({ lines, log, axis }) {
  const form = lines.map((line) => [line.colour, line.dash.join(), columnsOf(line).length, isShort(line)]);
  return JSON.stringify([form, log, axis.name]);
}
