// State of the page: rows of the table, and the curves and details of the shown runs. Each is
// requested once and then followed. Listeners receive the id of a changed run, or null if the table
// has changed.

import { Facts } from "./facts.js";
import { append } from "./series.js";

const POINTS = 2000; // per curve: more than a screen's width

export class Store {
  facts = new Facts({});
  runs = [];
  folder = "";
  problems = [];
  link = "following"; // or "lost"
  looks = new Set(); // inspections known from events, as "ID A-B"
  #answers;
  #curves = new Map(); // by run
  #fine = new Map(); // by run: the visible part of a thinned curve
  #details = new Map(); // by run
  #asked = new Set();
  #listeners = [];

  constructor(answers) {
    this.#answers = answers;
  }

  get frozen() {
    return this.#answers.frozen;
  }

  get canLook() {
    return this.#answers.canLook;
  }

  onChange(listener) {
    this.#listeners.push(listener);
  }

  async start() {
    this.facts = new Facts(await this.#answers.ask("/api/facts"));
    await this.#askForRuns();
    this.#answers.follow({
      message: (kind, data) => this.#hear(kind, data),
      standing: (link) => this.#linkIs(link),
    });
  }

  row(id) {
    return this.runs.find((row) => row.id === id);
  }

  // The curves of a run, or null until they arrive. `steps`: the visible part.
  curves(id, steps = null) {
    const whole = this.#once(`curves ${id}`, this.#curves, id,
      () => this.#answers.ask(`/api/runs/${id}/curves?points=${POINTS}`));
    if (!whole?.thinned || !steps || this.frozen) return whole;
    const fine = this.#fine.get(id);
    const [first, last] = steps;
    if (fine && fine.first === first && fine.last === last) return fine.curves ?? whole;
    this.#askForPart(id, first, last);
    return whole;
  }

  // Events, validations, checkpoints, …: the response of /api/runs/ID, or null until it arrives.
  details(id) {
    return this.#once(`details ${id}`, this.#details, id, () => this.#answers.ask(`/api/runs/${id}`));
  }

  // Loading progress of a run: {done, all, missing}, `missing` in words.
  progress(id) {
    const parts = [["its curves", this.#curves], ["its folder", this.#details]];
    const missing = parts.filter(([, kept]) => !kept.has(id)).map(([name]) => name);
    return { done: parts.length - missing.length, all: parts.length, missing };
  }

  // The curves with every step of a range.
  async steps(id, first, last) {
    return this.#answers.ask(`/api/runs/${id}/curves?points=${POINTS}&from=${first}&to=${last}`);
  }

  async nodes(id) {
    return this.#answers.ask(`/api/runs/${id}/nodes`);
  }

  async timeLapse(id) {
    return this.#answers.ask(`/api/runs/${id}/time-lapse`);
  }

  async look(id, first, last) {
    return this.#answers.ask(`/api/runs/${id}/looks/${first}-${last}`);
  }

  async startLook(id, first, last) {
    return this.#answers.startLook(id, first, last);
  }

  async #askForRuns() {
    const answer = await this.#answers.ask("/api/runs");
    this.runs = answer.runs;
    this.folder = answer.folder;
    this.problems = answer.problems ?? [];
    this.#tell(null);
  }

  #once(what, kept, id, ask) {
    if (!this.#asked.has(what)) {
      this.#asked.add(what);
      ask().then((answer) => kept.set(id, answer), (error) => kept.set(id, { failed: error.message }))
        .then(() => this.#tell(id));
    }
    return kept.get(id) ?? null;
  }

  async #askForPart(id, first, last) {
    const part = { first, last, curves: this.#fine.get(id)?.curves ?? null };
    this.#fine.set(id, part);
    try {
      part.curves = await this.steps(id, first, last);
    } catch {
      return; // keep the whole curve
    }
    if (this.#fine.get(id) === part) this.#tell(id);
  }

  #hear(kind, data) {
    if (kind === "runs") this.#hearRows(data.runs);
    if (kind === "steps") this.#hearSteps(data);
    if (kind === "curves") this.#readAgain(data.id);
    if (kind === "looks") this.looks.add(`${data.id} ${data.from}-${data.to}`);
  }

  // Another record has replaced that of a run.
  #readAgain(id) {
    this.#forget(id);
    if (this.#details.has(id)) this.#askAgain(id);
    this.#tell(id);
  }

  #hearRows(rows) {
    for (const row of rows) {
      const place = this.runs.findIndex(({ id }) => id === row.id);
      const before = this.runs[place];
      if (before) this.runs[place] = { ...before, ...row };
      else this.runs.push(row);
      const other = before?.standing.state !== row.standing.state
        || before?.standing.checkpoint !== row.standing.checkpoint;
      if (other && this.#details.has(row.id)) this.#askAgain(row.id);
    }
    this.#tell(null);
  }

  #hearSteps({ id, columns, validations, events }) {
    const curves = this.#curves.get(id);
    if (curves?.columns && columns?.step.length) {
      const last = curves.columns.step.at(-1);
      const fine = this.#fine.get(id)?.curves;
      if (fine && fine.columns.step.at(-1) === last) append(fine.columns, columns);
      append(curves.columns, columns);
      if (curves.columns.step.length > 3 * POINTS) this.#forget(id);
    }
    const details = this.#details.get(id);
    if (details?.validations) {
      addNew(details.validations, validations ?? [], ({ step }) => step);
      addNew(details.events, events ?? [], ({ step, event, words }) => `${step} ${event} ${words}`);
      if (validations?.length) this.#askAgain(id); // its samples, and the checkpoint's scores
    }
    this.#tell(id);
  }

  // Requests a run's details again, and keeps the former ones until they arrive.
  async #askAgain(id) {
    try {
      this.#details.set(id, await this.#answers.ask(`/api/runs/${id}`));
    } catch {
      return; // the next message requests them again
    }
    this.#tell(id);
  }

  #forget(id) {
    this.#asked.delete(`curves ${id}`);
    this.#fine.delete(id);
  }

  #linkIs(link) {
    const returned = link === "following" && this.link === "lost";
    this.link = link;
    if (returned) this.#catchUp();
    this.#tell(null);
  }

  // Requests the changes that were missed while the connection was lost.
  #catchUp() {
    for (const id of this.#curves.keys()) this.#forget(id);
    for (const id of this.#details.keys()) this.#askAgain(id);
    this.#askForRuns().catch(() => {});
  }

  #tell(id) {
    for (const listener of this.#listeners) listener(id);
  }
}

function addNew(known, more, keyOf) {
  const keys = new Set(known.map(keyOf));
  known.push(...more.filter((item) => !keys.has(keyOf(item))));
}
