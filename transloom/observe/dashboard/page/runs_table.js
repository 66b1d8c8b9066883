// The table of runs: filter, order, columns, and the choice of runs whose curves are shown.
//
// Rows are kept and changed in place, so that the focus does not move while runs train.

import { element } from "./drawing/elements.js";
import { fill, setText } from "./dom.js";
import { currentText } from "./facts.js";
import { FIELDS, fits, parseFilter, sorted, unknownFields, valueOf } from "./filters.js";
import { counted } from "./drawing/numbers.js";
import { toggled } from "./view_state.js";
import { scoreTitle, scoreValue, settingText, stepsOf, whole } from "./words.js";

const WIDE_SETTING = 60; // shown characters of a setting

export class RunsTable {
  #store;
  #change;
  #colours;
  #rows = new Map(); // by run: {row, cells, box}
  #filter;
  #known = element("datalist", { id: "known-fields" });
  #said = element("p", { class: "quiet", role: "status" });
  #choices = element("div", { class: "choices" });
  #head = element("tr", {});
  #body = element("tbody", {});
  #columns = "";
  #selected = [];
  #visible = [];

  // `change(changes of the view)`.
  constructor({ store, colours, change }) {
    this.#store = store;
    this.#change = change;
    this.#colours = colours;
    this.#filter = element("input", {
      type: "search", id: "filter", list: "known-fields", autocomplete: "off", spellcheck: "false",
      placeholder: "state:training  bleu>30  model.width=256", "aria-describedby": "filter-said",
      input: () => change({ filter: this.#filter.value }),
    });
    this.#said.id = "filter-said";
    this.root = element("section", { class: "runs", "aria-label": "Runs" },
      element("div", { class: "controls" },
        element("label", { class: "filter" }, element("span", {}, "Filter"), this.#filter), this.#known,
        element("details", { class: "menu" }, element("summary", {}, "Columns"), this.#choices),
        this.#said),
      element("div", { class: "scrolls table", tabindex: "0", role: "region", "aria-label": "Table of runs" },
        element("table", { class: "runs" },
          element("caption", { class: "unseen" }, "Runs; the curves of ticked runs are below"),
          element("thead", {}, this.#head), this.#body)));
  }

  // `selected`: the runs whose curves are shown. Returns the runs that match the filter.
  show(runs, view, selected, problems) {
    this.#selected = selected;
    const terms = parseFilter(view.filter);
    this.#visible = sorted(runs.filter((row) => fits(row, terms)), view.sort);
    if (document.activeElement !== this.#filter) this.#filter.value = view.filter;
    const columns = columnsOf(runs, view, this.#store.facts.at("table"));
    this.#showHead(columns, view, runs);
    this.#showRows(columns);
    const unknown = unknownFields(runs, terms);
    const few = this.#visible.length < runs.length ? ` of ${whole(runs.length)}` : "";
    setText(this.#said, [
      `${whole(this.#visible.length)}${few} ${runs.length === 1 ? "run" : "runs"}`,
      ...unknown.map((field) => `no run has a field “${field}”`),
      ...(problems.length ? [`${counted(problems.length, "problem")}: ${problems[0]}`] : []),
    ].join(" · "));
    return this.#visible;
  }

  #showHead(columns, view, runs) {
    const key = columns.map(({ field }) => field).join() + view.sort + runs.length;
    if (key === this.#columns) return;
    this.#columns = key;
    const focused = this.#head.contains(document.activeElement) && document.activeElement.dataset.field;
    fill(this.#head, element("th", { scope: "col" }, element("span", { class: "unseen" }, "curves")),
      ...columns.map(({ field, name, order, setting }) => {
        const isText = setting || ["name", "state", "job_owner"].includes(field);
        const here = view.sort.replace(/^-/, "") === field;
        const down = view.sort.startsWith("-");
        return element("th", { scope: "col", class: isText ? null : "number", "aria-sort": here ? (down ? "descending" : "ascending") : null },
          element("button", { type: "button", "data-field": field, click: () => this.#sortBy(field, order, view) },
            name, here && element("span", { "aria-hidden": "true" }, down ? " ↓" : " ↑")));
      }));
    if (focused) this.#head.querySelector(`[data-field="${CSS.escape(focused)}"]`)?.focus();
    this.#showChoices(runs, view);
  }

  // The first click sorts the best first, the second reverses the order, the third removes it.
  #sortBy(field, order) {
    this.#change((view) => {
      const [first, second] = order === "-" ? [`-${field}`, field] : [field, `-${field}`];
      if (view.sort === first) return { sort: second };
      return { sort: view.sort === second ? "" : first };
    });
  }

  #showRows(columns) {
    const keep = new Set(this.#visible.map(({ id }) => id));
    for (const [id, { row }] of this.#rows) {
      if (keep.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    const rows = this.#visible.map((run) => this.#rowOf(run, columns));
    const isOrdered = rows.every((row, n) => this.#body.children[n] === row);
    if (isOrdered && rows.length === this.#body.children.length) return;
    const focused = this.#body.contains(document.activeElement) ? document.activeElement : null;
    this.#body.replaceChildren(...rows);
    focused?.focus();
  }

  #rowOf(run, columns) {
    const { id, standing } = run;
    const fields = columns.map(({ field }) => field).join();
    let kept = this.#rows.get(id);
    if (!kept) {
      const box = element("input", {
        type: "checkbox", "aria-label": `curves of ${standing.name}`,
        change: () => this.#change({ runs: toggled(this.#selected, id, box.checked) }),
      });
      const swatch = element("span", {});
      kept = { box, swatch, row: element("tr", {}, element("td", {}, element("label", { class: "tick" }, box, swatch))) };
      this.#rows.set(id, kept);
    }
    if (kept.fields !== fields) {
      kept.fields = fields;
      kept.cells = columns.map(({ field }) => element("td", { class: field === "name" ? "name" : null }));
      kept.row.replaceChildren(kept.row.firstElementChild, ...kept.cells);
    }
    kept.box.checked = this.#selected.includes(id);
    const place = this.#colours.place(id);
    kept.swatch.className = kept.box.checked && place !== undefined ? `swatch run-${place % 8}` : "swatch";
    kept.row.classList.toggle("selected", kept.box.checked);
    columns.forEach((column, n) => showCell(kept.cells[n], column, run));
    return kept.row;
  }

  #showChoices(runs, view) {
    const settings = [...new Set(runs.flatMap((row) => Object.keys(row.standing.settings)))].sort();
    const various = settings.filter((key) => (
      new Set(runs.map((row) => JSON.stringify(row.standing.settings[key] ?? null))).size > 1));
    const rest = settings.filter((key) => !various.includes(key));
    const numbers = new Set(runs.flatMap(({ standing }) => Object.keys(standing.numbers ?? {})));
    fill(this.#known, ...[...FIELDS, "owner", ...numbers, ...settings].map((key) => element("option", { value: `${key}=` })));
    const boxes = (keys) => keys.map((key) => element("label", {}, element("input", {
      type: "checkbox", value: key, checked: view.columns.includes(key),
      change: (event) => this.#change((view) => ({ columns: toggled(view.columns, key, event.target.checked) })),
    }), key));
    fill(this.#choices,
      element("p", {}, various.length ? "Settings in which runs differ" : "All settings are the same"), ...boxes(various),
      element("p", {}, "Other settings"), ...boxes(rest));
  }
}

// The table's columns; each has its field for filter and order, and the order of the first click.
function columnsOf(runs, view, facts) {
  const names = [...new Set(runs.flatMap(({ standing }) => Object.keys(standing.scores ?? {})))];
  const scores = names.map((name) => {
    const found = runs.map(({ standing }) => standing.scores?.[name]).filter(Boolean);
    const score = found.find(({ decoding }) => decoding) ?? found[0];
    return { field: name, name: scoreTitle(name, score), order: score.more_is_better ? "-" : "", score: name };
  });
  return [
    { field: "name", name: "run", order: "" },
    { field: "state", name: "state", order: "" },
    { field: "step", name: "step", order: "-" },
    ...scores,
    ...facts.filter(({ name }) => runs.some((row) => valueOf(row, name) != null)).map((fact) => ({ field: fact.name, name: fact.title, order: fact.format === "span" ? "" : "-", fact })),
    ...view.columns.map((key) => ({ field: key, name: key.split(".").slice(-2).join("."), order: "", setting: key })),
  ];
}

function showCell(cell, column, run) {
  const { standing } = run;
  if (column.field === "name") {
    if (cell.firstChild) return;
    fill(cell, element("a", { href: `#run=${encodeURIComponent(run.id)}` }, standing.name));
  } else if (column.field === "state") {
    cell.className = `state ${standing.state}`;
    cell.title = standing.reason ?? "";
    setText(cell, standing.state);
  } else if (column.field === "step") {
    showSteps(cell, standing);
  } else if (column.score) {
    cell.className = "number";
    const best = standing.best?.[column.score];
    cell.title = best ? `best ${scoreValue(column.score, best.value)} at step ${whole(best.step)}` : "";
    setText(cell, scoreValue(column.score, standing.scores?.[column.score]?.value));
  } else if (column.setting) {
    const text = settingText(valueOf(run, column.setting));
    cell.title = text;
    setText(cell, text.length > WIDE_SETTING ? text.slice(0, WIDE_SETTING) + "…" : text);
  } else {
    cell.className = column.fact.format === "text" ? "" : "number";
    setText(cell, currentText(column.fact, standing) ?? "");
  }
}

function showSteps(cell, standing) {
  cell.className = "steps number";
  if (!cell.firstChild) fill(cell, element("span", {}), element("span", { class: "done" }, element("i", {})));
  setText(cell.firstChild, stepsOf(standing.step, standing.max_steps));
  const share = standing.max_steps ? Math.min(1, standing.step / standing.max_steps) : 0;
  cell.lastChild.firstChild.style.width = `${100 * share}%`;
  cell.lastChild.hidden = !standing.max_steps;
}
