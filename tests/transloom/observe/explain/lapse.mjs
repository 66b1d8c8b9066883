// The time-lapse of a page. Argument 1 is the file of a page, of whose time-lapse a copy is changed.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { mock, test } from "node:test";

import { click, drawnOn, fill, open, tell, until } from "../../../support/page_in_node.mjs";

const DATA = /(data-lapse="data">)(.*?)(<\/script>)/s;
const page = readFileSync(process.argv[2], "utf-8");
const histories = JSON.parse(DATA.exec(page)[2]);
const [first, second] = histories;
// The third step is the first with half of the last one's words; the second sentence is learned at once.
["x", "a x", "a b x", "a b c d"].forEach((output, n) => { first.moments[n].output = output; });
second.moments.forEach((moment) => { moment.output = "same"; });
Object.assign(first.moments[0], { output: "", ended: false, cut: 3 });
Object.assign(first.moments[1], { ended: true, cut: 0 });
first.moments[3].maps[0].mean = 4;
const file = `${process.argv[2]}.lapse.html`;
writeFileSync(file, page.replace(DATA, (_, before, data, after) => before + JSON.stringify(histories) + after));
const document = open(file);

const lapse = document.querySelector(".lapse");
const part = (name) => lapse.querySelector(`[data-lapse="${name}"]`);
const player = lapse.querySelector(".player");
const slider = player.querySelector("input");
const [before, after, play] = player.querySelectorAll("button");
const text = (name) => part(name).textContent;
const stage = () => Number(slider.value);
const percent = (share) => `${(100 * share).toFixed(2)}%`;
const clean = (node) => node.textContent.replaceAll(/\s+/g, " ").trim();

function slide(to) {
  slider.value = to;
  tell(slider, "input");
}

// All of a moment is shown: its text, its predictions, the maps of the chosen place, its row of the table.
function showsMoment({ moments }, n) {
  const { name, output, predictions, target, source, ended, maps } = moments[n];
  assert.equal(stage(), n);
  assert.equal(text("output"), output || "(nothing)");
  assert.equal(clean(player.querySelector(".quiet")), `after ${name}`);
  assert.equal(slider.getAttribute("aria-valuetext"), `after ${name}`);
  const rows = [...part("predictions").querySelectorAll("tbody tr")];
  assert.equal(rows.length, predictions.length);
  rows.forEach((row, t) => {
    const [number, input, candidates] = row.children;
    assert.deepEqual([number, input].map(clean), [`${t + 1}`, target[t]]);
    assert.equal(clean(candidates), predictions[t].map(({ piece, probability }) => `${piece} ${percent(probability)}`).join(""));
    const follows = t + 1 < target.length ? target[t + 1] : ended ? predictions[t][0].piece : null;
    assert.deepEqual([...candidates.querySelectorAll(".chosen b")].map(clean),
      predictions[t].map(({ piece }) => piece).filter((piece) => piece === follows));
  });
  const map = maps.find(({ place }) => place === part("place").value) ?? maps[0]; // of another model
  const [heads, height, width] = map.shape;
  const bytes = [...atob(map.weights)].map((letter) => letter.charCodeAt(0));
  const figures = [...part("maps").children];
  assert.equal(figures.length, heads);
  figures.forEach((figure, h) => {
    assert.match(figure.querySelector("figcaption").textContent, map.mean > 1 ? new RegExp(`^mean of ${map.mean} heads`) : new RegExp(`^head ${h + 1} `));
    assert.equal(figure.dataset.colours, "share");
    const [ofRows, ofColumns] = map.sides.map((side) => (side === "source" ? source : target));
    assert.deepEqual([figure.map.rows, figure.map.columns], [ofRows, ofColumns]);
    assert.deepEqual(figure.map.values, Array.from({ length: height }, (_, r) => Array.from({ length: width }, (_, c) =>
      Math.fround(bytes[(h * height + r) * width + c] / 255))));
  });
  const place = histories.findIndex((one) => one.moments === moments);
  const lists = [...part("all").children];
  assert.deepEqual(lists.map(({ hidden }) => hidden), histories.map((_, at) => at !== place));
  for (const list of lists) {
    const buttons = [...list.querySelectorAll("[data-at]")];
    assert.deepEqual(buttons.map((button) => button.closest("tr").classList.contains("marked")), buttons.map((_, at) => at === n));
    assert.deepEqual(buttons.map(({ ariaCurrent }) => ariaCurrent ?? null), buttons.map((_, at) => (at === n ? "step" : null)));
  }
  assert.deepEqual([before.disabled, after.disabled], [n === 0, n === moments.length - 1]);
}

test("it begins where half of the words of the last translation are there", () => {
  assert.equal(first.moments.length, 4);
  showsMoment(first, 2);
});

test("the slider and its buttons show each moment", () => {
  slide(0);
  showsMoment(first, 0);
  click(before);
  showsMoment(first, 0);
  [1, 2, 3].forEach((n) => {
    click(after);
    showsMoment(first, n);
  });
  click(after);
  showsMoment(first, 3);
  click(before);
  showsMoment(first, 2);
});

test("a translation that is cut, or whose sentence is, says so", () => {
  slide(0);
  assert.match(text("ended"), /cut at the maximum length.* 3 pieces/s);
  slide(1);
  assert.equal(text("ended"), "");
});

test("each attention can be chosen, and its maps are painted", async () => {
  slide(3);
  for (const { value } of [...part("place").options]) {
    fill(part("place"), value);
    showsMoment(first, 3);
  }
  fill(part("place"), first.moments[3].maps[0].place);
  const [figure] = part("maps").children;
  assert.ok(figure.layout);
  await until(() => drawnOn(figure.querySelector("canvas")).length > 0);
});

test("a row of the table shows its moment, and what is beside its button nothing", () => {
  const list = part("all").children[0];
  click(list.querySelector("[data-at='1']"));
  showsMoment(first, 1);
  click(list.querySelector("caption"));
  showsMoment(first, 1);
});

test("another sentence begins at its own start", () => {
  fill(part("sentence"), "1");
  showsMoment(second, 0);
  fill(part("sentence"), "0");
  showsMoment(first, 2);
});

test("play goes through all moments, one each second, and stops at the last one", () => {
  mock.timers.enable({ apis: ["setInterval"] });
  slide(0);
  assert.equal(play.hidden, false);
  assert.equal(play.textContent, "▶ Play");
  click(play);
  assert.deepEqual([stage(), play.textContent], [1, "■ Stop"]);
  mock.timers.tick(999);
  assert.equal(stage(), 1);
  mock.timers.tick(1);
  assert.equal(stage(), 2);
  mock.timers.tick(1000);
  assert.deepEqual([stage(), play.textContent], [3, "■ Stop"]);
  showsMoment(first, 3);
  mock.timers.tick(1000);
  assert.deepEqual([stage(), play.textContent], [3, "▶ Play"]);
  click(play); // begins again
  assert.equal(stage(), 0);
  click(play);
  assert.equal(play.textContent, "▶ Play");
  mock.timers.tick(5000);
  assert.equal(stage(), 0);
  click(play);
  slide(2); // a reader who moves it stops it
  mock.timers.tick(5000);
  assert.deepEqual([stage(), play.textContent], [2, "▶ Play"]);
  slide(0);
  click(play);
  player.remove(); // as does a page that drops it
  mock.timers.tick(5000);
  assert.deepEqual([stage(), play.textContent], [1, "▶ Play"]);
  mock.timers.reset();
});
