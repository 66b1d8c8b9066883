// The view, stored in the address's #fragment, so that it can be shared.
//
//   #runs=a,b&x=hours&smooth=0.6&log=loss&zoom=100..200      the table with two runs' curves
//   #run=a&step=57                                           a run's page with a step opened
//
// Default values are left out.

export const X_AXES = ["step", "tokens", "hours", "effective"];

// The view without a fragment. `runs` null: the page chooses.
export function newView() {
  return {
    run: null, runs: null, filter: "", sort: "", columns: [], x: "step", smooth: 0,
    log: [], charts: null, zoom: null, step: null,
  };
}

export function parseView(fragment) {
  const view = newView();
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const list = (name) => given.get(name).split(",").filter(Boolean).map(decoded);
  if (given.has("run")) view.run = given.get("run");
  if (given.has("runs")) view.runs = list("runs");
  if (given.has("filter")) view.filter = given.get("filter");
  if (given.has("sort")) view.sort = given.get("sort");
  if (given.has("columns")) view.columns = list("columns");
  if (X_AXES.includes(given.get("x"))) view.x = given.get("x");
  const smooth = Number(given.get("smooth"));
  if (smooth > 0 && smooth < 1) view.smooth = smooth;
  if (given.has("log")) view.log = list("log");
  if (given.has("charts")) view.charts = list("charts");
  const zoom = (given.get("zoom") ?? "").split("..").map(Number);
  if (zoom.length === 2 && zoom.every(Number.isFinite) && zoom[0] < zoom[1]) view.zoom = zoom;
  const [, id, step] = /^(.*)@(\d{1,15})$/.exec(given.get("step") ?? "") ?? [];
  if (id) view.step = { id, step: Number(step) };
  return view;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // the fragment was edited by hand
  }
}

export function writeView(view) {
  const parts = [];
  const say = (name, text) => parts.push(`${name}=${text}`);
  const text = (value) => encodeURIComponent(value).replaceAll("%20", "+");
  const list = (values) => values.map((value) => text(encodeURIComponent(value))).join(",");
  if (view.run) say("run", text(view.run));
  if (view.runs) say("runs", list(view.runs));
  if (view.filter) say("filter", text(view.filter));
  if (view.sort) say("sort", text(view.sort));
  if (view.columns.length) say("columns", list(view.columns));
  if (view.x !== "step") say("x", view.x);
  if (view.smooth) say("smooth", view.smooth);
  if (view.log.length) say("log", list(view.log));
  if (view.charts) say("charts", list(view.charts));
  if (view.zoom) say("zoom", view.zoom.map((end) => Number(end.toPrecision(7))).join(".."));
  if (view.step) say("step", text(`${view.step.id}@${view.step.step}`));
  return parts.length ? "#" + parts.join("&") : "";
}

// A list with or without an item; by default, the one that it is not yet.
export const toggled = (list, item, isOn = !list.includes(item)) =>
  (isOn ? [...list, item] : list.filter((other) => other !== item));
