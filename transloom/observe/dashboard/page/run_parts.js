// The textual parts of a run's page: each function makes elements of the response of /api/runs/ID.

import { element } from "./drawing/elements.js";
import { factsList, quiet, table } from "./dom.js";
import { currentText, titleOf } from "./facts.js";
import { counted } from "./drawing/numbers.js";
import { bytes, moment, scoreTitle, scoreValue, searchLabel, settingText, span, stepsOf, whole } from "./words.js";

export function standing({ standing: run, card, facts }) {
  const { loss, nll } = run.numbers ?? {};
  const shown = facts.at("status").filter(({ name }) => name !== "nll" || nll !== loss);
  const nodes = Object.entries(run.nodes ?? {}).map(([node, count]) => `${count} on ${node}`).join(", ");
  return [factsList([
    ["state", run.state + (run.reason ? `: ${run.reason}` : "")],
    ["step", stepsOf(run.step, run.max_steps)],
    ...shown.map((fact) => [titleOf(fact, run), currentText(fact, run)]),
    ...Object.entries(run.scores ?? {}).map(([name, score]) => (
      [scoreTitle(name, score), scoreValue(name, score.value) + bestOf(run, name)])),
    ["ranks", run.ranks ? counted(run.ranks, "rank") + (nodes ? `: ${nodes}` : "") : null],
    ["slow", run.slow_ranks?.length ? run.slow_ranks.map(slowText).join("; ") : null],
    ["trained by", run.owner && `process ${run.owner.process} on ${run.owner.host}, since ${moment(run.owner.since)}`],
    ["folder", run.path],
    ["run id", card?.id],
    ["dataset", card?.dataset_identity],
    ["first weights", card?.parent && settingText(card.parent)],
  ]), ...(run.problems ?? []).map((problem) => element("p", { class: "problem" }, problem))];
}

function slowText({ rank, node, cause, factor }) {
  const why = cause === "data" ? "waits longer for data" : "computes longer";
  return `rank ${rank}${node ? ` on ${node}` : ""}: ${factor.toFixed(2)} times as long as the others, because it ${why}`;
}

function bestOf(run, name) {
  const best = run.best?.[name];
  return best && best.step !== run.scores_step ? ` (best ${scoreValue(name, best.value)}, step ${whole(best.step)})` : "";
}

export function validations({ validations: all }) {
  if (!all.length) return [quiet("No validation yet.")];
  const newest = Object.assign({}, ...all.map(({ scores }) => scores));
  const names = Object.keys(newest);
  const rows = all.toReversed().map(({ step, scores }) => (
    [whole(step), ...names.map((name) => scoreValue(name, scores[name]?.value))]));
  return [table("Scores of each validation", ["step", ...names.map((name) => scoreTitle(name, newest[name]))], rows, { quiet: true, tall: true })];
}

// Scores on test sets, each with the signature of its computation; only reports have them.
export function testScores({ test_scores: sets }) {
  if (!sets?.length) return [];
  const rows = sets.map((row) => [row.test_set, row.score, row.value.toFixed(2), row.checkpoint,
    searchLabel(row), row.signature]);
  const header = ["test set", "score", "value", "checkpoint", "decoding", "signature"];
  return [table("Scores on test sets", header, rows, { quiet: true, texts: [3, 4, 5] })];
}

// sha256 of the files that identify the run; only reports have them.
export function hashes({ hashes: files }) {
  if (!files) return [];
  return [table("sha256 of its files", ["file", "sha256"], Object.entries(files), { quiet: true, texts: [1] })];
}

export function checkpoints({ standing: run, standing: { checkpoints: all } }) {
  const memory = run.memory_checkpoint_step == null ? null
    : quiet(`The memory of the nodes holds step ${whole(run.memory_checkpoint_step)}.`);
  if (!all.length) return [memory, quiet(memory ? "No checkpoint on disk yet." : "No checkpoint yet.")];
  const rows = all.toReversed().map(({ step, state, bytes: size, time, scores }) => [
    whole(step), element("span", { class: `state ${state}` }, state), bytes(size), time ? moment(time) : "",
    Object.entries(scores ?? {}).map(([name, score]) => `${scoreTitle(name, score)} ${scoreValue(name, score.value)}`).join(", "),
  ]);
  return [memory, table("All checkpoints", ["step", "state", "size", "time", "scores"], rows, { quiet: true, tall: true })];
}

export function samples({ samples: all }) {
  if (!all.length) return [quiet("No samples yet: a validation records them.")];
  return [table("Samples of the newest validation", ["source", "reference", "translation"],
    all.map((sample) => [sample.source, sample.reference, sample.translation]), { quiet: true, texts: [0, 1, 2], tall: true })];
}

// State of ranks and data workers by node.
export function vitals({ standing: run, standing: { vitals: found } }) {
  if (!found) return [quiet("No information about its processes.")];
  const isOld = run.state !== "training" || found.over;
  const ranks = found.ranks.map((rank) => (
    [rank.node, whole(rank.rank), rank.phase, whole(rank.step), span(rank.silent_seconds)]));
  const workers = found.data_workers.map((worker) => [
    worker.node ?? "–", whole(worker.number), worker.alive ? "alive" : "silent",
    whole(worker.windows_read), span(worker.silent_seconds)]);
  const unfit = found.unfit_nodes ?? [];
  return [
    element("p", { class: "quiet" }, `${isOld ? "Last state, at" : "State at"} ${moment(found.time)}, start ${whole(found.attempt)} of the ranks.`),
    ranks.length ? table("Ranks by node", ["node", "rank", "phase", "step", "silent for"], ranks, { tall: true }) : null,
    unfit.length ? table("Nodes that are left out", ["reason"], unfit.map((text) => [text]), { texts: [0] }) : null,
    workers.length ? table("Data workers", ["node", "worker", "state", "windows read", "silent for"], workers, { tall: true }) : null,
    found.restarts.length ? table("Restarts", ["time", "cause"],
      found.restarts.toReversed().map(({ time, cause }) => [moment(time), cause]), { texts: [1] }) : null,
  ];
}

// Numbers of examples read, kept and dropped, by corpus.
export function cleaning({ cleaning: report }) {
  if (!report) return [quiet("The dataset's cleaning report is not available.")];
  const rows = Object.entries(report).flatMap(([corpus, { read, kept, dropped }]) => {
    const share = (count) => (read ? `${((100 * count) / read).toFixed(2)} %` : "");
    const reasons = Object.entries(dropped ?? {}).filter(([, count]) => count > 0);
    return [
      [corpus, "read", whole(read), ""], ["", "kept", whole(kept), share(kept)],
      ...reasons.map(([reason, count]) => ["", `dropped: ${reason.replaceAll("_", " ")}`, whole(count), share(count)]),
    ];
  });
  return [table("Examples that the dataset cleaning read, kept and dropped", ["corpus", "result", "examples", "share"],
    rows, { quiet: true, texts: [0], tall: true })];
}

export function recipe({ standing: { settings } }) {
  return [table("The recipe", ["setting", "value"],
    Object.entries(settings).map(([key, value]) => [key, settingText(value)]), { quiet: true, texts: [1], tall: true })];
}

export function environment({ environment: known }) {
  const rows = flat(known ?? {});
  if (!rows.length) return [quiet("Not recorded.")];
  return [table("Versions and numerics", ["name", "value"], rows, { quiet: true, texts: [1], tall: true })];
}

function flat(values, before = "") {
  return Object.entries(values).flatMap(([key, value]) => (
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? flat(value, `${before}${key}.`) : [[before + key, settingText(value)]]));
}

// Commands that reproduce the run, each with a copy button.
export function commands({ commands: all }) {
  if (!all.length) return [quiet("Not known.")];
  return [element("ul", { class: "commands" }, ...all.map((command) => element("li", {},
    element("code", {}, command), copyButton(command))))];
}

function copyButton(text) {
  if (!navigator.clipboard) return null;
  const button = element("button", {
    type: "button", class: "small", "aria-label": `copy ${text}`,
    click: () => navigator.clipboard.writeText(text).then(() => { button.textContent = "copied"; }),
  }, "copy");
  return button;
}

export function log({ log: entries }) {
  if (!entries.length) return [quiet("Empty.")];
  return [table("The run's log, newest first", ["time", "message"],
    entries.toReversed().map(({ time, text }) => [moment(time), text]), { quiet: true, texts: [1], tall: true })];
}
