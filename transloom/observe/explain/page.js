// The stepper: one section at a time, by buttons, the list or the address's #fragment. Each step is
// an entry of the browser's history, so that its Back leads to the step before.
//
// A fragment is the id of a section or of a part of one, or "box-" and the key of a box of the
// model's figure. A section may have a method `draw`, which is called before it is shown.

import { element, optionGroups } from "../drawing/elements.js";
import { paint, paintAll } from "../drawing/heat_map.js";
import { makeSavable } from "../drawing/saving.js";
import { followTheme } from "../drawing/theme.js";

const list = document.querySelector("nav");
const menu = document.getElementById("menu");
const first = document.querySelector(".first-screen");
const back = document.getElementById("back");
const on = document.getElementById("on");
const root = document.documentElement;
const sections = () => [...document.querySelectorAll("main > section")];
const state = {
  here: null, // the section that is shown
  places: new Map(), // the fragment of each box
  isFollowed: false, // the fragment of the address was found
};

// Takes over the sections that are there now. `places`: see above.
export function refresh(places = new Map()) {
  state.places = places;
  showList();
  // A reader may have arrived at a section while its successor was computed.
  const isReplaced = Boolean(state.here) && !state.here.isConnected;
  state.here = sections().find(({ id }) => id === state.here?.id) ?? sections()[0];
  if (state.isFollowed && !isReplaced) show(state.here);
  else follow(isReplaced);
}

// Sections of a group that follow each other stand in one list. The parts of a section that is there from
// the beginning have entries, too.
function showList() {
  const groups = [];
  const link = (id, name) => element("a", { href: `#${id}` }, element("bdi", {}, name));
  for (const section of sections()) {
    const { id, dataset: { group, name } } = section;
    if (groups.at(-1)?.group !== group) groups.push({ group, entries: [] });
    const parts = [...section.querySelectorAll(":scope:not(.drawn) h2[id]")].map((part) =>
      element("li", {}, link(part.id, part.textContent)));
    groups.at(-1).entries.push(
      element("li", {}, link(id, name), parts.length > 0 && element("ol", {}, parts)));
  }
  list.replaceChildren(...groups.flatMap(({ group, entries }) =>
    [element("h2", {}, group), element("ol", {}, entries)]));
  menu.replaceChildren(...optionGroups(groups.map(({ group, entries }) =>
    [group, entries.map(({ firstChild: link }) => [link.getAttribute("href"), link.textContent])])));
}

function show(section) {
  const all = sections();
  const place = all.indexOf(section);
  state.here = section;
  section.draw?.();
  all.forEach((one) => one.classList.toggle("here", one === section));
  list.querySelectorAll("a").forEach((link) => link.getAttribute("href") === `#${section.id}`
    ? link.setAttribute("aria-current", "step") : link.removeAttribute("aria-current"));
  menu.value = `#${section.id}`;
  scrollListTo(list.querySelector("[aria-current]"));
  back.disabled = place === 0;
  on.disabled = place === all.length - 1;
  const said = `${place + 1} of ${all.length}`;
  const shown = document.getElementById("place");
  if (shown.textContent !== said) shown.textContent = said;
  paintAll(section);
  makeSavable(section);
}

// Scroll the list of sections, but never the page: on narrow screens the list is below the text,
// and scrollIntoView would leave the reader there.
function scrollListTo(link) {
  const [shown, wanted] = [list, link].map((node) => node.getBoundingClientRect());
  list.scrollTop += Math.min(0, wanted.top - shown.top) + Math.max(0, wanted.bottom - shown.bottom);
}

// The element of a fragment, or null.
function elementOf(fragment) {
  const id = fragment.startsWith("box-") ? state.places.get(fragment.slice(4)) ?? "" : fragment;
  document.getElementById(/^section-\d+/.exec(id)?.[0])?.draw?.();
  return document.getElementById(id);
}

// A section, or a heading or fold in it, which is then opened.
function follow(arrived) {
  const wanted = elementOf(decodeURIComponent(location.hash.slice(1)));
  const section = wanted?.closest("main > section");
  state.isFollowed = !location.hash || Boolean(section);
  // The page without a fragment is its first section, to which Back may lead.
  show(section ?? (location.hash ? state.here : sections()[0]));
  if (!section) return;
  for (let fold = wanted.closest("details"); fold; fold = fold.parentElement.closest("details")) {
    fold.open = true;
  }
  if (wanted.id === "section-1") window.scrollTo(0, 0);
  else wanted.scrollIntoView();
  if (arrived) section.focus({ preventScroll: true });
}

const go = (steps) => {
  const all = sections();
  location.hash = all[all.indexOf(state.here) + steps].id;
};
back.addEventListener("click", () => go(-1));
on.addEventListener("click", () => go(1));
menu.addEventListener("change", () => { location.hash = menu.value; });
window.addEventListener("hashchange", () => follow(true));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  state.here.focus();
});

// In a frame of a notebook (srcdoc), links would lead to places of the notebook.
if (location.protocol === "about:") {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    if (!link) return;
    event.preventDefault();
    location.hash = link.getAttribute("href");
  });
}

const repaint = () => [first, state.here].forEach(paintAll);
followTheme(repaint);
document.getElementById("scale").addEventListener("change", (event) => {
  root.dataset.scale = event.target.value;
  repaint();
});
let width = innerWidth;
window.addEventListener("resize", () => {
  if (innerWidth !== width) repaint();
  width = innerWidth;
});

// A print shows all sections, or only the one whose button was pressed, without folds.
let opened = [];
window.addEventListener("beforeprint", () => {
  if (!root.dataset.printed) sections().forEach((section) => section.draw?.());
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((fold) => { fold.open = true; });
  document.querySelectorAll("figure.map").forEach(paint);
});
window.addEventListener("afterprint", () => opened.forEach((fold) => { fold.open = false; }));
document.getElementById("print").addEventListener("click", () => {
  root.dataset.printed = "one";
  window.print();
  delete root.dataset.printed;
});

root.classList.add("stepping");
refresh();
