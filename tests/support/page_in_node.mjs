// Opens a page's file in Node, as a browser would: linkedom has the document, this module the
// window, what linkedom's form controls lack, and a user. Nothing is laid out: all boxes are equal.

import { resolveObjectURL } from "node:buffer";
import { readFileSync } from "node:fs";
import { runInThisContext } from "node:vm";

import * as dom from "./vendor/linkedom/worker.js";

const { setTimeout: later } = globalThis;
const LONG_MS = 5_000;
let tries = 2_000; // each waits 5 ms, and longer on a busy machine
const SCRIPTS = [null, "", "module", "text/javascript"];
const BOX = { left: 0, top: 0, x: 0, y: 0, width: 100, height: 20, right: 100, bottom: 20 };

// Opens a page; there is one per process, because its window is Node's global object.
// `answers` returns the response to a path; further options are names of the window.
export function open(file, { fragment = "", protocol = "http:", still = false, answers = () => null, ...more } = {}) {
  const { document } = dom.parseHTML(readFileSync(file, "utf-8"));
  giveControls(document);
  giveWindow(document, { fragment, protocol, still, answers, ...more });
  for (const script of [...document.querySelectorAll("script")]) {
    if (SCRIPTS.includes(script.getAttribute("type"))) runInThisContext(script.textContent, { filename: "page.js" });
  }
  return document;
}

// The exports of the modules in the page, by the name of the module.
export const modulesOfPage = () => runInThisContext("modules");

// Waits until a condition holds, and returns what it returns. After one never held, others get less time.
export async function until(condition) {
  let problem;
  for (let n = 0; n < tries; n++) {
    try {
      const found = await condition();
      if (found) return found;
    } catch (error) { problem = error; }
    await new Promise((resolve) => later(resolve, 5));
  }
  tries = 100;
  throw new Error(`never held: ${condition}`, { cause: problem });
}

// What a user does: each function tells the element's listeners what a browser would tell them.

export function tell(target, type, given = {}) {
  const event = new dom.Event(type, { bubbles: true, cancelable: true });
  for (const [name, value] of Object.entries(given)) Object.defineProperty(event, name, { value });
  return target.dispatchEvent(event);
}

let isByKeyboard = false; // how the user acted last

export function click(target) {
  if (target.disabled) return;
  isByKeyboard = false;
  if (target.type === "checkbox" || target.type === "radio") {
    target.checked = target.type === "radio" || !target.checked;
    tell(target, "click");
    tell(target, "input");
    tell(target, "change");
  } else if (tell(target, "click")) {
    if (target.localName === "summary") {
      target.parentElement.open = !target.parentElement.open;
      tell(target.parentElement, "toggle");
    }
    if (target.hasAttribute("download")) {
      saved.push({ name: target.getAttribute("download"), blob: resolveObjectURL(target.getAttribute("href")) });
    }
    const link = target.closest("a[href^='#']");
    if (link) location.hash = link.getAttribute("href");
    if (target.localName === "button" && target.type === "submit" && target.form) tell(target.form, "submit");
  }
}

export function fill(control, value) {
  control.focus();
  control.value = value;
  tell(control, "input");
  tell(control, "change");
}

export function press(target, key, given = {}) {
  isByKeyboard = true;
  target.focus?.();
  return tell(target, "keydown", { key, shiftKey: false, ctrlKey: false, altKey: false, metaKey: false, ...given });
}

// What was drawn on a canvas since it got its size: [method, ...arguments] of each call, which also has
// the context's properties at that time as `style`.
export const drawnOn = (canvas) => canvas.getContext("2d").drawn;

// The files that links of the page saved: {name, blob}.
export const saved = [];

// The text that a user reads: without what is hidden.
export function textOf(node) {
  if (node.nodeType === 3) return node.textContent;
  if (node.hidden || ["script", "style", "noscript", "template"].includes(node.localName)) return "";
  return [...node.childNodes].map(textOf).join("");
}

// Holds the page's clock: its timers fire when `pass(milliseconds)` is called. Call this before `open`.
export function holdClock() {
  const held = new Map();
  let now = 0;
  const hold = (call, after, every) => {
    const timer = { due: now + after };
    held.set(timer, () => { every ? timer.due += after : held.delete(timer); call(); });
    return timer;
  };
  const clear = (timer) => { held.delete(timer); };
  Object.assign(globalThis, {
    setTimeout: (call, after = 0) => hold(call, after, false), setInterval: (call, after) => hold(call, after, true),
    clearTimeout: clear, clearInterval: clear, performance: { now: () => now },
  });
  return function pass(milliseconds) {
    const end = now + milliseconds;
    for (;;) {
      const [next] = [...held.keys()].filter(({ due }) => due <= end).sort((a, b) => a.due - b.due);
      if (!next) break;
      now = next.due;
      held.get(next)();
    }
    now = end;
  };
}

function giveControls(document) {
  const { Element, HTMLInputElement: Input, HTMLSelectElement: Select } = dom;
  const reflected = (name) => ({ get() { return this.hasAttribute(name); }, set(on) { this.toggleAttribute(name, Boolean(on)); } });
  const options = (select) => [...select.querySelectorAll("option")];
  const chosen = (select) => options(select).filter((one) => one.hasAttribute("selected")).slice(-1);
  const choose = (select, isChosen) => options(select).forEach((one, n) => one.toggleAttribute("selected", isChosen(one, n)));
  const properties = {
    hidden: reflected("hidden"), disabled: reflected("disabled"), open: reflected("open"), checked: reflected("checked"),
    clientWidth: { get: () => 1280 }, offsetWidth: { get: () => 1280 }, scrollWidth: { get: () => 1280 },
    clientHeight: { get: () => 800 }, offsetHeight: { get: () => 800 }, scrollHeight: { get: () => 800 },
    form: { get() { return this.closest("form"); } },
    labels: { get() {
      return [...document.querySelectorAll("label")].filter((one) => one.contains(this) || (this.id && one.getAttribute("for") === this.id));
    } },
    rows: { get() { return [...this.querySelectorAll("tr")]; } },
    cells: { get() { return [...this.children]; } },
    tBodies: { get() { return [...this.querySelectorAll("tbody")]; } },
  };
  for (const [name, given] of Object.entries(properties)) Object.defineProperty(Element.prototype, name, { ...given, configurable: true });
  Object.defineProperties(Input.prototype, {
    value: { get() { return this.typed ?? this.getAttribute("value") ?? ""; }, set(value) { this.typed = String(value); } },
    valueAsNumber: { get() { return this.value === "" ? NaN : Number(this.value); }, set(value) { this.value = value; } },
  });
  for (const name of ["min", "max", "step"]) {
    Object.defineProperty(Input.prototype, name, {
      get() { return this.getAttribute(name) ?? ""; }, set(value) { this.setAttribute(name, value); } });
  }
  Input.prototype.checkValidity = function () {
    const [value, min, max] = [this.value, this.min, this.max];
    if (value === "") return !this.hasAttribute("required");
    return this.type !== "number" || (Number.isFinite(Number(value)) && !(min !== "" && Number(value) < min) && !(max !== "" && Number(value) > max));
  };
  Object.defineProperties(Select.prototype, {
    options: { get() { return options(this); } },
    selectedOptions: { get() { return chosen(this).length ? chosen(this) : options(this).slice(0, 1); } },
    selectedIndex: { get() { return options(this).indexOf(this.selectedOptions[0]); }, set(at) { choose(this, (_, n) => n === at); } },
    value: { get() { return this.selectedOptions[0]?.value ?? ""; }, set(value) { choose(this, (one) => one.value === String(value)); } },
  });
  for (const name of ["blur", "click"]) delete dom.HTMLElement.prototype[name]; // these do less
  let active = null;
  Object.defineProperty(document, "activeElement", { get: () => active ?? document.body });
  const { matches } = Element.prototype;
  Object.assign(Element.prototype, {
    matches(kind) { return kind === ":focus-visible" ? active === this && isByKeyboard : matches.call(this, kind); },
    focus() {
      if (active === this) return;
      active?.blur();
      active = this;
      tell(this, "focus");
      tell(this, "focusin");
    },
    blur() {
      if (active !== this) return;
      active = null;
      tell(this, "blur");
      tell(this, "focusout");
    },
    click() { click(this); },
    showModal() { this.open = true; },
    close() { this.open = false; tell(this, "close"); },
    getBoundingClientRect: () => BOX,
    checkVisibility() { return !this.closest("[hidden]"); },
    scrollIntoView() { document.scrolledTo = this; },
    setPointerCapture() {},
  });
  const canvas = dom.HTMLCanvasElement.prototype;
  canvas.getContext = function () { return this.drawing ??= drawing(this); };
  for (const [name, size] of [["width", 300], ["height", 150]]) {
    Object.defineProperty(canvas, name, {
      get() { return Number(this.getAttribute(name) ?? size); },
      set(value) { this.setAttribute(name, Math.trunc(value)); this.drawing?.drawn.splice(0); },
    });
  }
}

// A context that notes what is drawn, and with which properties.
function drawing(canvas, path) {
  const drawn = [...path?.drawn ?? []], kept = [];
  let style = {};
  const note = (call) => { drawn.push(Object.defineProperty(call, "style", { value: style })); };
  const known = {
    canvas, drawn, measureText: (text) => ({ width: 7 * String(text).length }),
    save() { kept.push(style); note(["save"]); },
    restore() { style = kept.pop() ?? style; note(["restore"]); },
  };
  return new Proxy(known, {
    get: (target, name) => target[name] ?? (name in style ? style[name] : (...given) => note([name, ...given])),
    set(target, name, value) { style = { ...style, [name]: value }; return true; },
  });
}

function giveWindow(document, { fragment, protocol, still, answers, ...more }) {
  const page = new dom.EventTarget();
  let hash = fragment;
  const location = {
    protocol, pathname: "/", search: "", get hash() { return hash; },
    set hash(to) {
      const bare = to.replace(/^#/, "");
      const changed = bare && `#${bare}`;
      if (changed === hash) return;
      hash = changed;
      setTimeout(() => tell(page, "hashchange"));
    },
  };
  const history = { replaceState(state, title, to) { hash = to.includes("#") ? to.slice(to.indexOf("#")) : ""; } };
  // Light colours, such as --page: var(--light, 255 255 255) var(--dark, 20 22 26);
  const colours = new Map([...document.querySelectorAll("style")].flatMap((one) =>
    [...one.textContent.matchAll(/(--[a-z-]+): var\(--light, ([^)]*)\)/g)].map(([, name, value]) => [name, value])));
  class XMLSerializer { serializeToString(node) { return node.toString(); } }
  class Observer { // all is in view
    constructor(told) { Object.assign(this, { told }); }
    observe(target) { setTimeout(() => this.told([{ target, isIntersecting: true }], this)); }
    unobserve() {}
    disconnect() {}
  }
  const style = (element) => new Proxy({ getPropertyValue: (name) => colours.get(name) ?? "#123456" }, { get: (known, name) => known[name] ?? (element.style?.[name] || "0px") });
  const { setTimeout: timed } = globalThis;
  const given = {
    setTimeout: (told, ms, ...values) => { // the process does not wait for a long one, such as before memory is freed
      const timer = timed(told, ms, ...values);
      return (ms > LONG_MS && timer.unref?.()) || timer;
    },
    document, location, history, innerWidth: 1280, innerHeight: 800,
    ...Object.fromEntries(["Node", "Event", "CustomEvent", "Element", "HTMLElement"].map((name) => [name, dom[name]])),
    matchMedia: (query) => ({ matches: still && query.includes("motion"), addEventListener() {}, addListener() {}, removeListener() {} }),
    requestAnimationFrame: (told) => setTimeout(() => told(performance.now())), cancelAnimationFrame: (timer) => clearTimeout(timer),
    XMLSerializer, ResizeObserver: Observer, IntersectionObserver: Observer, getComputedStyle: style,
    fetch: async (path, options) => answers(String(path), options), devicePixelRatio: 1,
    localStorage: new Map(), navigator: { language: "en" }, CSS: { escape: (text) => text }, Path2D: function (path) { return drawing(null, path); },
    addEventListener: page.addEventListener.bind(page), removeEventListener: page.removeEventListener.bind(page),
    dispatchEvent: page.dispatchEvent.bind(page), scrollTo() {}, print() {}, ...more,
  };
  for (const [name, value] of Object.entries(given)) Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
  globalThis.window = globalThis.self = globalThis;
}
