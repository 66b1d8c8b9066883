// The comparison of two models as it is drawn from the page's data. Argument 1 is the file of a page.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { click, drawnOn, fill, modulesOfPage, open, press, tell, textOf, until } from "../../../support/page_in_node.mjs";

const file = process.argv[2];
const found = JSON.parse(/id="comparison">(.*?)<\/script>/s.exec(readFileSync(file, "utf-8"))[1]);
const document = open(file);
const { sides, parting, same_source, same_target } = found;
const names = sides.map(({ name }) => name);
const section = document.getElementById("compare");
const part = (name) => section.querySelector(`[data-compare="${name}"]`);
const together = same_target ? [sides] : sides.map((side) => [side]);
const rowsOf = (table) => [...table.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
const titlesOf = (table) => [...table.querySelectorAll("thead th")].map((cell) => cell.textContent);
const percent = (share) => (share < 0.00005 ? "< 0.01%" : share >= 0.99995 ? "> 99.99%" : `${(100 * share).toFixed(2)}%`);
const precise = (value) => (Math.abs(value) >= 1e-4 ? value.toFixed(4) : value.toExponential(2)).replaceAll("-", "−");
const near = (a, b) => Math.abs(a - b) < 1e-6;
const isNear = (values, expected) => assert.ok(values.length === expected.length && values.every((line, t) =>
  line.length === expected[t].length && line.every((value, s) => near(value, expected[t][s]))), `${values} is not ${expected}`);

// The weights of a head, or the mean of all, as rows.
function weightsOf({ shape: [heads, length, keys], data }, head) {
  const some = head === "mean" ? Array.from({ length: heads }, (_, h) => h) : [Number(head)];
  return Array.from({ length }, (_, t) => Array.from({ length: keys }, (_, s) =>
    some.reduce((sum, h) => sum + data[(h * length + t) * keys + s], 0) / some.length));
}
const attentionOf = ({ attentions }, key) => attentions.find((one) => one.key === key);
const sameReaders = { encoder: same_source && same_source, self: same_target, cross: same_source && same_target };
const canSubtract = (key) => sameReaders[key.startsWith("encoder") ? "encoder" : key.endsWith("cross_attention") ? "cross" : "self"] &&
  sides.every((side) => attentionOf(side, key));
const keysOf = ({ attentions }) => attentions.map(({ key }) => key);
const keys = sides[0].attentions.length >= sides[1].attentions.length
  ? [...keysOf(sides[0]), ...keysOf(sides[1]).filter((key) => !keysOf(sides[0]).includes(key))]
  : [...keysOf(sides[1]), ...keysOf(sides[0]).filter((key) => !keysOf(sides[1]).includes(key))];
const both = keys.filter(canSubtract);
const headsOf = (count) => ["mean", ...Array.from({ length: count }, (_, h) => `${h}`)];
const most = Math.max(...sides.map(({ attentions }) => attentions[0].shape[0]));
const common = Math.min(...sides.map(({ attentions }) => attentions[0].shape[0]));
const mapsShown = () => [...part("maps").children];

test("the section says the sentence, and what the page leaves out", () => {
  assert.equal(part("read").textContent, found.sentence);
  assert.equal(part("cut").textContent, found.cut ? `The maps show only ${found.cut}.` : "");
});

test("both translations are shown with their log-probabilities", () => {
  assert.deepEqual(rowsOf(part("translations")), sides.map(({ name, translation, log_probability }) =>
    [name, translation || "(nothing)", `${precise(log_probability)} nats`]));
  assert.equal(part("translations").querySelectorAll("output").length, 2);
});

test("the step is named at which the translations diverge, with both probabilities", () => {
  const said = part("parting").textContent;
  if (!parting) {
    assert.match(said, same_target ? /do not diverge/ : /vocabularies differ/);
    return assert.equal(part("parting-table").children.length, 0);
  }
  const { step, probabilities } = parting;
  const before = sides[0].written.slice(0, step).map((piece) => ` ${piece}`).join("");
  assert.equal(said.replace(/^[^0-9]* diverge at /, ""), step === 0 ? "the first step." : `step ${step + 1}, after${before}.`);
  assert.deepEqual(titlesOf(part("parting-table")), ["model", ...sides.map(({ name, written }) =>
    `probability of ${written[step]}, chosen by ${name}`)]);
  assert.deepEqual(rowsOf(part("parting-table")), names.map((name, n) => [name, ...probabilities[n].map(percent)]));
  const bars = [...part("parting-table").querySelectorAll("td.share i")].map((bar) => bar.style.width);
  assert.deepEqual(bars, probabilities.flat().map((share) => `${(100 * share).toFixed(1)}%`));
});

test("each step has its candidates and the next piece, and the end the mean loss", () => {
  const tables = [...part("steps").querySelectorAll("table")];
  assert.equal(tables.length, together.length);
  together.forEach((some, n) => {
    const rows = some[0].asked.map((piece, t) => [`${t + 1}`, some[0].target[t],
      ...some.map(({ steps }) => steps[t].best.map((one) => `${one.piece} ${percent(one.probability)}`).join("")),
      piece, ...some.map(({ steps }) => percent(steps[t].asked))]);
    const losses = some.map(({ steps }) => -steps.reduce((sum, { asked }) => sum + Math.log(asked), 0) / steps.length);
    const [shown, mean] = [rowsOf(tables[n]).slice(0, -1), rowsOf(tables[n]).at(-1)];
    assert.deepEqual(shown, rows);
    assert.deepEqual(mean.slice(1), losses.map(precise));
    const title = tables[n].querySelector("tr.sum th");
    assert.equal(Number(title.getAttribute("colspan")) + some.length, titlesOf(tables[n]).length);
    assert.deepEqual(titlesOf(tables[n]), ["step", "input", ...some.map(({ name }) => `most probable next, ${name}`),
      "next piece", ...some.map(({ name }) => `its probability, ${name}`)]);
  });
});

test("each layer's prediction is shown, and marked where it agrees with the next piece", () => {
  const tables = [...part("lens").querySelectorAll("table")];
  together.forEach((some, n) => {
    const layers = some.flatMap(({ name, lens }) => lens.map((layer) => ({ ...layer, title: `${layer.name}, ${name}` })));
    assert.deepEqual(titlesOf(tables[n]), ["step", ...layers.map(({ title }) => title), "next piece"]);
    const rows = [...tables[n].querySelectorAll("tbody tr")];
    some[0].asked.forEach((piece, t) => {
      const cells = [...rows[t].children].slice(1, -1);
      layers.forEach(({ steps }, l) => {
        const [best] = steps[t].best;
        const agrees = best.piece === piece;
        assert.equal(cells[l].className, agrees ? "agrees" : "");
        const other = agrees ? "" : `next piece: ${percent(steps[t].asked)}`;
        assert.equal(cells[l].textContent, `${best.piece} ${percent(best.probability)}${other}`);
      });
      assert.deepEqual([rows[t].firstChild.textContent, rows[t].lastChild.textContent], [`${t + 1}`, piece]);
    });
  });
});

test("distances are half the sum of the differences, for the heads that both have", () => {
  assert.equal(part("distances-words").hidden, both.length === 0);
  const [figure] = part("distances").children;
  if (!both.length) return assert.equal(figure, undefined);
  const expected = both.map((key) => headsOf(common).map((head) => {
    const [one, other] = sides.map((side) => weightsOf(attentionOf(side, key), head));
    return one.reduce((sum, line, t) =>
      sum + line.reduce((all, weight, s) => all + Math.abs(weight - other[t][s]), 0) / 2, 0) / one.length;
  }));
  isNear(figure.map.values, expected);
  assert.deepEqual(figure.map.columns, ["mean of heads", ...Array.from({ length: common }, (_, h) => `head ${h + 1}`)]);
  assert.equal(figure.map.rows.length, both.length);
  assert.equal(figure.dataset.colours, "share");
});

function showsMaps(key, head) {
  const maps = sides.map((side) => {
    const attention = attentionOf(side, key);
    return attention && (head === "mean" || Number(head) < attention.shape[0]) ? weightsOf(attention, head) : null;
  });
  const isSubtracted = maps.every(Boolean) && canSubtract(key);
  const shown = mapsShown();
  assert.equal(shown.length, isSubtracted ? 3 : 2, `${key} ${head}`);
  maps.forEach((values, n) => {
    if (!values) return assert.equal(shown[n].textContent, `${names[n]} has no such head.`);
    isNear(shown[n].map.values, values);
    const { source, target } = sides[n];
    assert.deepEqual(shown[n].map.rows, (key.startsWith("encoder") ? source : target).slice(0, values.length));
    assert.deepEqual(shown[n].map.columns,
      (key.startsWith("encoder") || key.endsWith("cross_attention") ? source : target).slice(0, values[0].length));
    assert.match(shown[n].querySelector("figcaption").textContent, new RegExp(`^${names[n]} .*0 to 1`));
  });
  if (!isSubtracted) return;
  const [, , less] = shown;
  isNear(less.map.values, maps[1].map((line, t) => line.map((weight, s) => weight - maps[0][t][s])));
  assert.match(less.querySelector("figcaption").textContent, new RegExp(`^${names[1]} less ${names[0]} .*±1\\.00`));
  assert.deepEqual([less.map.rows, less.map.columns], [shown[0].map.rows, shown[0].map.columns]);
}

test("at first, the maps are those of the last cross-attention that both have", () => {
  const crossed = keys.filter((key) => key.endsWith("cross_attention") && sides.every((side) => attentionOf(side, key)));
  assert.equal(part("place").value, crossed.at(-1));
  assert.equal(part("head").value, "mean");
  assert.deepEqual([...part("place").options].map(({ value }) => value), keys);
  assert.deepEqual([...part("head").options].map(({ value, textContent }) => [value, textContent]),
    headsOf(most).map((head) => [head, head === "mean" ? "mean of heads" : `head ${Number(head) + 1}`]));
  showsMaps(crossed.at(-1), "mean");
});

test("each attention and head can be chosen", () => {
  for (const key of keys) {
    fill(part("place"), key);
    for (const head of headsOf(most)) {
      fill(part("head"), head);
      showsMaps(key, head);
      assert.deepEqual([part("place").value, part("head").value], [key, head]);
    }
  }
});

test("the maps are painted, and can be saved", async () => {
  const [figure] = mapsShown().filter(({ localName }) => localName === "figure");
  await until(() => drawnOn(figure.querySelector("canvas")).length > 0);
  await until(() => figure.querySelector(".save"));
});

test("a distance that is chosen shows its maps", () => {
  if (!both.length) return;
  const [figure] = part("distances").children;
  const grid = figure.querySelector(".grid");
  assert.ok(figure.layout);
  press(grid, "ArrowRight");
  press(grid, "ArrowDown");
  press(grid, "Enter");
  const key = both[Math.min(1, both.length - 1)];
  assert.deepEqual([part("place").value, part("head").value], [key, "0"]);
  showsMaps(key, "0");
  assert.ok(document.activeElement === part("place"));
});

if (!document.getElementById("compared-model")) {
  test("without both models in the page, what is typed elsewhere changes nothing", () => {
    assert.equal(section.draw, undefined);
    assert.doesNotMatch(textOf(part("state")), /unpacked|Type another/);
  });
}

export { click, document, modulesOfPage, part, section, tell, until };
