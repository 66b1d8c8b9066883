// The filter and the order of the table of runs: pure functions on rows.
//
//   state:training  bleu>30  model.width=256  lang        all of these must hold
//
// A single word is searched in the run's name and in the values of its settings. NAME:TEXT and
// NAME=TEXT test a field (= for equality, : for a part); NAME>NUMBER and the like compare. A field
// is a fact of the run, a score, or a setting by its dotted name or the end of it: `width`.

import { current } from "./facts.js";

const TERM = /"([^"]*)"|(\S+)/g;
const COMPARED = /^([\w./-]+?)(<=|>=|!=|=|:|<|>)(.*)$/;

// The terms of a filter, each {field, sign, value} or {word}.
export function parseFilter(text) {
  return [...text.matchAll(TERM)].map(([, quoted, plain]) => {
    const parts = quoted === undefined ? COMPARED.exec(plain) : null;
    if (!parts) return { word: (quoted ?? plain).toLowerCase() };
    return { field: parts[1], sign: parts[2], value: parts[3].toLowerCase() };
  });
}

// True if a row fulfils all terms.
export function fits(row, terms) {
  return terms.every((term) => (term.word === undefined ? holds(row, term) : mentions(row, term)));
}

// The fields of the terms that no row has, to report a misspelling.
export function unknownFields(rows, terms) {
  return terms.filter(({ field }) => field && !rows.some((row) => valueOf(row, field) !== undefined))
    .map(({ field }) => field);
}

// The value of a row's field; undefined if the row has no such field.
export function valueOf(row, field) {
  const { standing } = row, { settings } = standing;
  const name = FORMER[field.toLowerCase()] ?? field.toLowerCase();
  if (FIELDS.includes(name) || Object.hasOwn(standing.numbers ?? {}, name)) return current(standing, name);
  if (name === "owner") return standing.job_owner ?? standing.owner?.host ?? null;
  if (standing.scores?.[name]) return standing.scores[name].value;
  if (name.startsWith("best.")) return standing.best?.[name.slice(5)]?.value;
  if (Object.hasOwn(settings, field)) return settings[field];
  const ending = Object.keys(settings).find((key) => key.toLowerCase().endsWith("." + name));
  return ending === undefined ? undefined : settings[ending];
}

// The fields of all runs, in addition to current numbers, scores and settings.
export const FIELDS = ["name", "state", "step", "ranks", "seconds_left", "job_owner", "priority", "cost"];
const FORMER = { "tokens/s": "target_tokens_per_second", "tflop/s": "tflops_per_second", left: "seconds_left" };

// Rows in the order of a field, "-field" for the largest first; unknown values come last.
export function sorted(rows, order) {
  if (!order) return rows;
  const field = order.replace(/^-/, "");
  const sign = order.startsWith("-") ? -1 : 1;
  return rows.map((row) => [valueOf(row, field) ?? null, row])
    .sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      if (typeof a === "number" && typeof b === "number") return sign * (a - b);
      return sign * String(a).localeCompare(String(b), "en", { numeric: true });
    })
    .map(([, row]) => row);
}

// The runs shown until the user chooses: the ones in `chosen`, then runs of the same task, training
// ones first, then by their number of steps; at most `most` in all.
export function firstChoice(rows, chosen, most) {
  const trains = ({ standing }) => (standing.state === "training" ? 1 : 0);
  const others = rows.filter(({ id }) => !chosen.includes(id))
    .sort((a, b) => trains(b) - trains(a) || b.standing.step - a.standing.step);
  const first = rows.find(({ id }) => chosen.includes(id)) ?? others[0];
  const more = others.filter((row) => taskOf(row) === taskOf(first));
  return [...chosen, ...more.slice(0, most - chosen.length).map(({ id }) => id)];
}

// The task of a run, which older recipes leave out.
export function taskOf({ standing }) {
  return standing.settings.task ?? "translation";
}

// The settings in which runs differ: [{key, values}], a value for each run.
export function differences(rows) {
  const keys = [...new Set(rows.flatMap(({ standing }) => Object.keys(standing.settings)))].sort();
  return keys
    .map((key) => ({ key, values: rows.map(({ standing }) => standing.settings[key] ?? null) }))
    .filter(({ values }) => new Set(values.map((value) => JSON.stringify(value))).size > 1);
}

function holds(row, { field, sign, value }) {
  const found = valueOf(row, field);
  if (found === undefined || found === null) return sign === "!=";
  const wanted = Number(value);
  const isNumber = typeof found === "number" && value !== "" && !Number.isNaN(wanted);
  const text = textOf(found);
  switch (sign) {
    case ":": return text.includes(value);
    case "=": return isNumber ? found === wanted : text === value;
    case "!=": return isNumber ? found !== wanted : text !== value;
    case "<": return isNumber && found < wanted;
    case ">": return isNumber && found > wanted;
    case "<=": return isNumber && found <= wanted;
    default: return isNumber && found >= wanted;
  }
}

function mentions({ standing }, { word }) {
  return standing.name.toLowerCase().includes(word) || standing.state.includes(word)
    || Object.values(standing.settings).some((value) => textOf(value).includes(word));
}

function textOf(value) {
  return (typeof value === "string" ? value : JSON.stringify(value)).toLowerCase();
}
