"use strict";
// The stepper: one section at a time, by buttons, keys, the list or the address's #fragment.
{
  const sections = [...document.querySelectorAll("main > section")];
  const links = [...document.querySelectorAll("nav a")];
  const back = document.getElementById("back");
  const on = document.getElementById("on");
  let here = -1;

  function show(number) {
    const next = Math.max(0, Math.min(sections.length - 1, number));
    if (next === here) return;
    here = next;
    sections.forEach((section, i) => section.classList.toggle("here", i === here));
    links.forEach((link, i) =>
      i === here ? link.setAttribute("aria-current", "step") : link.removeAttribute("aria-current"));
    links[here].scrollIntoView({ block: "nearest" });
    back.disabled = here === 0;
    on.disabled = here === sections.length - 1;
    document.getElementById("place").textContent = `${here + 1} of ${sections.length}`;
    history.replaceState(null, "", "#" + sections[here].id);
    window.scrollTo(0, 0);
    paintAll(sections[here]);
  }

  function fromAddress() {
    const wanted = sections.findIndex((section) => "#" + section.id === location.hash);
    show(wanted < 0 ? 0 : wanted);
  }

  back.addEventListener("click", () => show(here - 1));
  on.addEventListener("click", () => show(here + 1));
  window.addEventListener("hashchange", fromAddress);
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const target = {
      ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: sections.length - 1,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    show(target);
  });

  // Light or dark: as the system, until the button says otherwise.
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const repaint = () => paintAll(sections[here]);
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
    root.dataset.theme = dark ? "light" : "dark";
    repaint();
  });
  systemDark.addEventListener("change", repaint);
  window.addEventListener("beforeprint", () => paintAll(document));

  root.classList.add("stepping");
  fromAddress();
}
