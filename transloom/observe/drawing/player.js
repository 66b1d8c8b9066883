// Stages on a slider: a reader moves it, goes step by step, or lets it play.

import { element } from "./elements.js";

const PAUSE_MS = 1000;

// Whether a reader wants no animation; stages are then shown side by side.
export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// {root, length, go, here}. `noun` is what a stage is called; `show(stage)` draws one and returns its name.
// `length(count, stage)` begins again at a stage of `count`; `here()` is the stage and the number of them.
export function player(noun, show) {
  let timer = null;
  const button = (attributes, text) => element("button", { type: "button", ...attributes }, text);
  const slider = element("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": noun,
    oninput: () => go(slider.valueAsNumber) });
  const before = button({ "aria-label": `${noun} before`, onclick: () => go(slider.valueAsNumber - 1) }, "‹");
  const after = button({ "aria-label": `${noun} after`, onclick: () => go(slider.valueAsNumber + 1) }, "›");
  const play = button({ hidden: isStill(), onclick: () => (timer ? stop() : start()) }, "▶ Play");
  const said = element("span", { class: "quiet" });
  const root = element("p", { class: "controls player" }, before, slider, after, play, said);
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ Play";
  };
  const draw = (stage) => {
    slider.value = stage;
    said.textContent = show(slider.valueAsNumber);
    slider.setAttribute("aria-valuetext", said.textContent);
    before.disabled = slider.value === slider.min;
    after.disabled = slider.value === slider.max;
  };
  const go = (stage) => {
    stop();
    draw(stage);
  };
  const start = () => {
    draw(after.disabled ? 0 : slider.valueAsNumber + 1);
    play.textContent = "■ Stop";
    timer = setInterval(() => {
      if (!after.disabled && root.isConnected) draw(slider.valueAsNumber + 1);
      else stop();
    }, PAUSE_MS);
  };
  const length = (count, stage = 0) => {
    slider.max = count - 1;
    go(stage);
  };
  return { root, length, go, here: () => [slider.valueAsNumber, Number(slider.max) + 1] };
}
