"use strict";
// The stepper: one section at a time, by buttons, the list or the address's #fragment. Each step is
// an entry of the browser's history, so that its Back leads to the step before.
{
  const sections = [...document.querySelectorAll("main > section")];
  const list = document.querySelector("nav");
  const links = [...list.querySelectorAll("a")];
  const back = document.getElementById("back");
  const on = document.getElementById("on");
  const root = document.documentElement;
  let here = -1;

  function show(number) {
    here = number;
    sections.forEach((section, i) => section.classList.toggle("here", i === here));
    links.forEach((link, i) =>
      i === here ? link.setAttribute("aria-current", "step") : link.removeAttribute("aria-current"));
    scrollListTo(links[here]);
    back.disabled = here === 0;
    on.disabled = here === sections.length - 1;
    document.getElementById("place").textContent = `${here + 1} of ${sections.length}`;
    paintAll(sections[here]);
    makeSavable(sections[here]);
  }

  // Scroll the list of sections, but never the page: on narrow screens the list is below the text,
  // and scrollIntoView would leave the reader there.
  function scrollListTo(link) {
    const [shown, wanted] = [list, link].map((node) => node.getBoundingClientRect());
    list.scrollTop += Math.min(0, wanted.top - shown.top) + Math.max(0, wanted.bottom - shown.bottom);
  }

  // A section, or a heading or fold in it, which is then opened.
  function follow(arrived) {
    const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const section = wanted?.closest("main > section");
    // The page without a fragment is its first section, to which Back may lead.
    if (!section) return show(location.hash && here >= 0 ? here : 0);
    show(sections.indexOf(section));
    for (let fold = wanted.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      fold.open = true;
    }
    if (wanted === section) window.scrollTo(0, 0);
    else wanted.scrollIntoView();
    if (arrived) section.focus({ preventScroll: true });
  }

  const go = (number) => { location.hash = sections[number].id; };
  back.addEventListener("click", () => go(here - 1));
  on.addEventListener("click", () => go(here + 1));
  window.addEventListener("hashchange", () => follow(true));

  // In a frame of a notebook (srcdoc), links would lead to places of the notebook.
  if (location.protocol === "about:") {
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.('a[href^="#"]');
      if (!link) return;
      event.preventDefault();
      location.hash = link.getAttribute("href");
    });
  }

  // Light or dark: as the system, until the button says otherwise.
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const repaint = () => paintAll(sections[here]);
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
    root.dataset.theme = dark ? "light" : "dark";
    repaint();
  });
  systemDark.addEventListener("change", repaint);
  document.getElementById("scale").addEventListener("change", (event) => {
    root.dataset.scale = event.target.value;
    repaint();
  });
  let width = innerWidth;
  window.addEventListener("resize", () => {
    if (innerWidth !== width) repaint();
    width = innerWidth;
  });

  // On paper, all sections stand below each other, and nothing is folded.
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((fold) => { fold.open = true; });
    paintAll(document);
  });
  window.addEventListener("afterprint", () => opened.forEach((fold) => { fold.open = false; }));

  root.classList.add("stepping");
  follow(false);
}
