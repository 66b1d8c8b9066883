// Numbers, times and names formatted for a person.

import { formatCount } from "./drawing/numbers.js";

const SCORE_NAMES = { bleu: "BLEU", chrf: "chrF", ter: "TER", loss: "validation loss" };

// A number with its significant digits.
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) {
    return minus(value.toExponential(2).replace(/\.?0*e\+?/, "e"));
  }
  if (Number.isInteger(value)) return whole(value);
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
  const form = size < 1 ? { maximumSignificantDigits: 4 } : { maximumFractionDigits: digits };
  return minus(value.toLocaleString("en", form));
}

// A short number, for an axis.
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9 || size < 1e4) return number(value);
  const [by, unit] = size >= 1e6 ? [1e6, "M"] : [1e3, "k"];
  return minus(`${Number((value / by).toPrecision(4))}${unit}`);
}

// A whole number with commas.
export function whole(value) {
  if (value === null || value === undefined) return "–";
  return minus(formatCount(Math.round(value)));
}

// A run's last step and its last planned step; a run may have passed a `max_steps` that was lowered
// later.
export function stepsOf(step, maxSteps) {
  if (!maxSteps) return whole(step);
  return step > maxSteps ? `${whole(step)} (max_steps is ${whole(maxSteps)})` : `${whole(step)} of ${whole(maxSteps)}`;
}

// A duration, in at most two units.
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const rounded = Math.max(0, Math.round(seconds));
  const parts = [
    [Math.floor(rounded / 86400), "d"],
    [Math.floor(rounded / 3600) % 24, "h"],
    [Math.floor(rounded / 60) % 60, "min"],
    [rounded % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`).join(" ");
}

// A time by this machine's clock: from seconds since the epoch, or a text with a zone.
export function moment(time) {
  const date = typeof time === "number" ? new Date(time * 1000) : new Date(time ?? NaN);
  if (Number.isNaN(date.getTime())) return String(time ?? "");
  const two = (part) => String(part).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// A number of bytes.
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  const unit = count < 1 ? 0 : Math.min(4, Math.floor(Math.log10(count) / 3));
  const scaled = count / 1000 ** unit;
  return `${scaled >= 100 || unit === 0 ? Math.round(scaled) : scaled.toFixed(1)} ${units[unit]}`;
}

export function scoreName(name) {
  return SCORE_NAMES[name] ?? name.replaceAll("_", " ");
}

// A score's name with the search that made the scored texts, such as "BLEU (greedy)".
export function scoreTitle(name, score) {
  return scoreName(name) + (score?.decoding ? ` (${score.decoding})` : "");
}

// The name of the search with `beam_size` and `length_penalty`, as `search_label` in Python returns
// it.
export function searchLabel({ beam_size: beam, length_penalty: alpha }) {
  return beam === 1 ? "greedy" : `beam ${beam}, α ${alpha}`;
}

// A score's value with the decimals that papers print.
export function scoreValue(name, value) {
  if (value === null || value === undefined) return "–";
  return name === "loss" ? value.toFixed(4) : value.toFixed(2);
}

// A setting's value on one line.
export function settingText(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function minus(text) {
  return String(text).replaceAll("-", "−");
}
