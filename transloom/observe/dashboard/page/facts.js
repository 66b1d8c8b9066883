// The facts of runs and the kinds of their events, as `/api/facts` lists them. Other modules only
// choose the places that show them.

import { number, span, whole } from "./words.js";

const FORMATS = {
  loss: (value) => value.toFixed(3), percent: (value) => `${(100 * value).toFixed(1)}%`,
  rate: whole, seconds: number, span, whole,
};

export class Facts {
  #facts;
  kinds;

  constructor({ facts = [], events = [] }) {
    this.#facts = facts;
    this.kinds = events;
  }

  // The facts that at least one of the places shows.
  at(...places) {
    return this.#facts.filter(({ show }) => places.some((place) => show.includes(place)));
  }

  named(name) {
    return this.#facts.find((fact) => fact.name === name);
  }

  // The kind of an event; a later version may have others.
  kindOf({ event }) {
    return this.kinds.find(({ name }) => name === event) ?? { title: event.replaceAll("_", " "), mark: "stop" };
  }
}

// With label smoothing, the minimised loss does not compare with a validation's loss.
export function titleOf({ name, title }, standing) {
  return name === "loss" && standing?.smooths_labels ? `${title} (smoothed)` : title;
}

// The value of a step, with its unit if the value is not a share.
export function stepText(fact, value, standing) {
  if (typeof value !== "number") return number(value);
  const text = (FORMATS[fact.format] ?? number)(value);
  const isComplete = ["percent", "span"].includes(fact.format);
  return isComplete ? text : `${text} ${fact.unit.replace("{unit}", standing?.loss_unit ?? "unit")}`.trimEnd();
}

// The current value of a fact in a run's status; undefined if it is unknown.
export function current(standing, name) {
  return standing.numbers?.[name] ?? standing[name];
}

export function currentText(fact, standing) {
  const value = current(standing, fact.name);
  if (typeof value === "string") return value.replaceAll("_", " ");
  if (typeof value !== "number") return null;
  return fact.current === "share" ? `${FORMATS.percent(value)} of the time of recent steps` : stepText(fact, value, standing);
}
