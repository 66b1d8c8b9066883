// A step of a run, opened by a click on its point: its record, and an inspection.
//
//   click ─▶ the step, or the largest loss of the point's steps ─▶ "Inspect this step"
//   ─▶ the server trains it again (progress) ─▶ sentences, gradient norms, activations

import { element } from "./drawing/elements.js";
import { factsList, fill, setText } from "./dom.js";
import { stepText, titleOf } from "./facts.js";
import { lookParts } from "./look.js";
import { firstFrom } from "./series.js";
import { whole } from "./words.js";

const ASK_EVERY_MS = 1000;

export class StepPanel {
  root;
  #store;
  #change;
  #title = element("h2", { tabindex: "-1", id: "step-title" });
  #record = element("div", {});
  #state = element("p", { class: "quiet", role: "status" });
  #result = element("div", {});
  #first = stepInput("from step");
  #last = stepInput("to step");
  #begin;
  #shown = null; // {id, step}
  #returnTo = null;
  #timer = null;

  constructor({ store, change }) {
    this.#store = store;
    this.#change = change;
    this.#begin = element("button", { type: "submit", class: "primary" }, "Inspect this step");
    const close = element("button", { type: "button", click: () => this.root.close() }, "Close");
    const move = (by, words) => element("button", { type: "button", click: () => this.#move(by) }, words);
    this.root = element("dialog", { class: "step", "aria-labelledby": "step-title", close: () => this.#closed() },
      element("header", {}, this.#title, move(-1, "← previous step"), move(1, "next step →"), close),
      this.#record,
      element("form", { submit: (event) => this.#submit(event) },
        element("label", {}, "from step ", this.#first), element("label", {}, "to step ", this.#last), this.#begin),
      this.#state, this.#result);
  }

  // `step`: {id, step}, or null for none.
  show(step) {
    if (!step) {
      if (this.root.open) this.root.close();
      return;
    }
    if (this.#shown?.id === step.id && this.#shown.step === step.step) {
      setText(this.#title, this.#heading());
      return;
    }
    this.#shown = step;
    this.#first.value = this.#last.value = String(step.step);
    clearTimeout(this.#timer);
    fill(this.#record);
    fill(this.#result);
    setText(this.#state, "");
    setText(this.#title, this.#heading());
    if (!this.root.open) {
      this.#returnTo = document.activeElement;
      this.root.showModal();
      this.#title.focus();
    }
    this.#showRecord(step);
    this.#offer(step);
  }

  // The step of a point: of several steps, the one with the largest value of the clicked measure.
  async stepOf(id, step, measure) {
    const curves = this.#store.curves(id);
    const fact = this.#store.facts.named(measure);
    const by = fact?.extremes.length || fact?.format === "seconds" ? measure : null;
    if (!curves?.thinned || !by) return step;
    const { columns } = curves;
    const n = firstFrom(columns.step, step);
    const first = (columns.step[n - 1] ?? 0) + 1;
    const last = (columns.step[n + 1] ?? step + 1) - 1;
    try {
      const fine = (await this.#store.steps(id, first, last)).columns;
      let most = 0;
      fine[by].forEach((value, m) => { if ((value ?? -Infinity) > (fine[by][most] ?? -Infinity)) most = m; });
      return fine.step[most] ?? step;
    } catch {
      return step;
    }
  }

  #heading() {
    return `Step ${whole(this.#shown.step)} of ${this.#store.row(this.#shown.id)?.standing.name ?? this.#shown.id}`;
  }

  #move(by) {
    this.#change({ step: { id: this.#shown.id, step: Math.max(1, this.#shown.step + by) } });
  }

  #closed() {
    clearTimeout(this.#timer);
    this.#shown = null;
    this.#change({ step: null });
    if (this.#returnTo?.isConnected) this.#returnTo.focus();
  }

  async #showRecord(step) {
    let columns;
    try {
      ({ columns } = await this.#store.steps(step.id, step.step, step.step));
    } catch (error) {
      setText(this.#state, error.message);
      return;
    }
    if (this.#shown !== step) return;
    const n = firstFrom(columns.step, step.step);
    const details = this.#store.details(step.id);
    const events = (details?.events ?? []).filter((event) => event.step === step.step);
    const said = events.map(({ words }) => element("p", {}, words));
    if (columns.step[n] !== step.step) {
      const why = this.#store.frozen ? "The report does not include every step." : "The record has no values for this step.";
      fill(this.#record, element("p", { class: "quiet" }, why), said);
      return;
    }
    const standing = this.#store.row(step.id)?.standing;
    fill(this.#record, factsList(this.#store.facts.at("step").map((fact) =>
      [titleOf(fact, standing), stepText(fact, columns[fact.name]?.[n], standing)])), said);
  }

  // Shows an inspection immediately if this page knows of it.
  async #offer(step) {
    const form = this.root.querySelector("form");
    form.hidden = !this.#store.canLook;
    if (!this.#store.canLook) {
      const { path } = this.#store.row(step.id)?.standing ?? {};
      fill(this.#state, "To see the step's sentences and gradients, run ",
        element("code", {}, `transloom replay ${path ?? "RUN"} --steps ${step.step}:${step.step} --look`));
      return;
    }
    if (!this.#store.looks.has(`${step.id} ${step.step}-${step.step}`)) return;
    const answer = await this.#store.look(step.id, step.step, step.step).catch(() => null);
    if (this.#shown === step && answer) this.#showLook(step, step.step, step.step, answer);
  }

  async #submit(event) {
    event.preventDefault();
    const [first, last] = [Number(this.#first.value), Number(this.#last.value)];
    const step = this.#shown;
    if (!(first >= 1 && first <= last)) {
      setText(this.#state, `Steps ${this.#first.value} to ${this.#last.value} are not a valid range: the first step must be at least 1, and not after the last step.`);
      return;
    }
    this.#begin.disabled = true;
    setText(this.#state, "Starting the inspection …");
    try {
      const answer = await this.#store.startLook(step.id, first, last);
      if (this.#shown === step) this.#showLook(step, first, last, answer);
    } catch (error) {
      if (this.#shown === step) setText(this.#state, error.message);
    }
    this.#begin.disabled = false;
  }

  #showLook(step, first, last, answer) {
    const isRunning = answer.state === "running";
    this.root.classList.toggle("busy", isRunning);
    setText(this.#state, answer.message || (isRunning ? "Training the steps again …" : ""));
    if (answer.state === "done" && answer.look) fill(this.#result, ...lookParts(answer.look, capital(titleOf(this.#store.facts.named("loss"), this.#store.row(step.id)?.standing))));
    if (isRunning) this.#timer = setTimeout(() => this.#askAgain(step, first, last), ASK_EVERY_MS);
  }

  async #askAgain(step, first, last) {
    if (this.#shown !== step) return;
    try {
      const answer = await this.#store.look(step.id, first, last);
      if (this.#shown === step) this.#showLook(step, first, last, answer);
    } catch (error) {
      setText(this.#state, error.message);
    }
  }
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

function stepInput(label) {
  return element("input", { type: "number", min: "1", step: "1", required: true, "aria-label": label });
}
