// The first screen of a page with a recorded trace: the flow of the numbers, step by step, and the map of one
// head with one of its rows computed. Argument 1 is the page's file; argument 2 is "still" for a reader who
// wants nothing to move.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, modulesOfPage, open, saved, tell, until } from "../../../support/page_in_node.mjs";

const isStill = process.argv[3] === "still";
const document = open(process.argv[2], { still: isStill });
const part = (name) => document.querySelector(`.first-screen [data-first="${name}"]`);
await until(() => part("head").options.length > 0);
const { facts } = modulesOfPage()["explain/walk/walk.js"];
const { excerptOf, staleNote } = modulesOfPage()["explain/walk/first_screen.js"];
const trace = await modulesOfPage()["explain/walk/trace.js"].recordedTrace(facts, facts.recorded);
const { form, limits, family } = facts;
const { given = 1, chosen, predictions } = trace;
const stack = trace.stack ?? trace.encoder;
const [read, written] = [trace.source ?? trace.pieces, trace.target ?? trace.pieces];

function rowsOf({ shape, data, kept = shape }, head = 0) {
  const [height, width] = kept.slice(-2);
  return Array.from({ length: height }, (_, r) => [...data.slice((head * height + r) * width, (head * height + r + 1) * width)]);
}
const number = (value, digits = 2) => value.toFixed(digits).replace(/^-(?=[0.]+$)/, "").replace("-", "−");
const percent = (share) => `${number(100 * share)}%`;
const near = (a, b) => (a === null || b === null ? a === b : Math.abs(a - b) < 1e-5 * Math.max(1, Math.abs(b)));
const isNear = (found, expected) => assert.ok(found.length === expected.length && found.every((one, n) => near(one, expected[n])),
  `${found} is not ${expected}`);
const flow = (name) => part("flow").querySelector(`[data-flow="${name}"]`);
const about = (name) => flow(name).querySelector(".about").textContent.replaceAll(/\s+/g, " ").trim();
const [before, after] = part("steps").querySelectorAll("button");
const slider = part("steps").querySelector("input");
const excerpt = (pieces, keep = 0) => (pieces.length <= 8 ? pieces
  : pieces.flatMap((piece, n) => (n < 5 || n === keep || n === pieces.length - 1 ? [piece]
    : n === 5 || n - 1 === keep ? [null] : []))).map((piece) => piece ?? "…");
const said = (pieces, keep) => excerpt(pieces, keep).join(" ");

// The first numbers of a row on an arrow, shaded by their share of the row's largest.
function showsNumbers(name, count, piece, row) {
  assert.equal(about(name).split("…")[0].trim(), `${count} × ${form.width}, ${piece}: ${row.slice(0, 3).map((one) => number(one)).join(" ")}`);
  const most = Math.max(...row.map(Math.abs));
  const shades = [...flow(name).querySelectorAll(".row i")].map(({ style }) => style.background);
  assert.deepEqual(shades, row.slice(0, 3).map((value) =>
    `rgb(var(--${value < 0 ? "negative" : "positive"}) / ${(0.5 * Math.abs(value) / most).toFixed(3)})`));
}

const inputRow = rowsOf(stack.embedding.normed_tm ?? stack.embedding.sum_tm)[0];
const expected = {
  translation(step) {
    assert.equal(about("tokens"), `${read.ids.length} pieces ${said(read.texts)}`);
    showsNumbers("embedding", read.ids.length, read.texts[0], inputRow);
    showsNumbers("memory", read.ids.length, read.texts[0], rowsOf(trace.encoder.output_tm)[0]);
    assert.ok(about("decoder").endsWith(said(written.texts.slice(0, step + 1))));
    showsNumbers("hidden state", 1, written.texts[step], rowsOf(trace.decoder.output_tm)[step]);
    assert.match(about("encoder"), new RegExp(`^${facts.encoder_layers} layers`));
    return predictions[step].best;
  },
  continuation(step) {
    const count = given + step;
    assert.equal(about("tokens"), `${count} pieces ${said(read.texts.slice(0, count))}`);
    showsNumbers("embedding", count, read.texts[0], inputRow);
    showsNumbers("hidden state", 1, read.texts[count - 1], rowsOf(stack.output_tm)[count - 1]);
    return predictions[count - 1].candidates.find(({ id }) => id === chosen.ids[step]);
  },
  filling() {
    const [place] = trace.places;
    assert.equal(about("tokens"), `${read.ids.length} pieces ${said(read.texts, place)}`);
    showsNumbers("embedding", read.ids.length, read.texts[0], inputRow);
    showsNumbers("hidden state", trace.places.length, read.texts[place], rowsOf(trace.states_nm)[0]);
    assert.equal(about("output").includes("the first "), trace.places.length > 1);
    return predictions[0].best;
  },
};

function showsStep(step) {
  const { text, probability } = expected[family](step);
  assert.ok(about("output").endsWith(`: ${text} ${percent(probability)}`), about("output"));
  assert.match(about("output"), /most probable/);
  const kinds = (name) => [...flow(name).querySelectorAll("bdi[class]")].map(({ className }) => className);
  assert.deepEqual(kinds("output"), ["token follows"]);
  assert.ok(kinds("tokens").every((kind) => kind === "token"));
  assert.equal(flow("hidden state").querySelectorAll(".loop").length, family === "filling" ? 0 : 1);
  assert.equal(document.querySelectorAll(".loop").length, family === "filling" ? 0 : 1);
}

const steps = chosen?.ids.length ?? 0;

test("the flow shows each step of the decoder", () => {
  assert.equal(part("steps").firstChild.hidden, steps === 0);
  assert.equal(part("made").textContent, trace.made || "(nothing)");
  const links = [...part("flow").querySelectorAll("a")];
  showsStep(0);
  for (let step = 1; step < steps; step++) {
    click(after);
    showsStep(step);
    assert.equal(part("steps").querySelector(".quiet").textContent, `step ${step + 1} of ${steps}`);
  }
  assert.equal(after.disabled, true);
  assert.equal(Number(slider.max), Math.max(0, steps - 1));
  assert.ok([...part("flow").querySelectorAll("a")].every((link, n) => link === links[n])); // a click is not lost
  if (steps) click(before);
  if (steps) showsStep(steps - 2);
  slider.value = 0;
  tell(slider, "input");
  showsStep(0);
});

test("a reader who wants nothing to move cannot let the steps play", () => {
  const [, , play] = part("steps").querySelectorAll("button");
  assert.equal(play.hidden, isStill);
});

test("each box leads to its place", () => {
  for (const link of part("flow").querySelectorAll("a")) {
    const box = link.getAttribute("data-box");
    assert.equal(link.getAttribute("href"), `#box-${box}`);
    assert.ok(facts.boxes.includes(box), box);
  }
});

test("of many pieces, the first five, a chosen one and the last one are shown", () => {
  for (let count = 1; count < 15; count++) {
    const pieces = Array.from({ length: count }, (_, n) => `p${n}`);
    for (let keep = 0; keep < count; keep++) {
      const shown = excerptOf(pieces, keep);
      assert.deepEqual(shown.map((piece) => piece ?? "…"), excerpt(pieces, keep));
    }
  }
});

// All attentions of the page, in the order of computation, and the weights of each head.
const places = Object.entries({ encoder: trace.encoder, decoder: trace.decoder, stack: trace.stack }).flatMap(([name, one]) =>
  (one?.layers ?? []).flatMap((layer, n) => ["self_attention", "cross_attention"].filter((kind) => layer[kind])
    .map((kind) => ({ key: `${name}.layers.${n}.${kind}`, attention: layer[kind], kind, name }))));
const heads = places.flatMap((place) => Array.from({ length: form.heads }, (_, head) => ({ ...place, head })));
const isCausal = ({ name, kind }) => family === "continuation" || (name === "decoder" && kind === "self_attention");
const figureOf = () => part("head-map").querySelector("figure");
const choice = () => part("head-map").querySelector("select");
const numbered = (texts) => texts.map((text, n) => (texts.filter((one) => one === text).length > 1 ? `${text} (${n})` : text));

function showsHead({ attention, head, kind, name }) {
  const { rows, columns, values } = figureOf().map;
  const weights = rowsOf(attention.weights_hts, head);
  const causal = isCausal({ name, kind });
  weights.forEach((line, t) => isNear(values[t], line.map((weight, s) => (causal && s > t ? null : weight))));
  const texts = name === "encoder" ? read.texts : written.texts;
  assert.deepEqual(rows, numbered(texts));
  assert.deepEqual(columns, numbered(kind === "cross_attention" ? read.texts : texts));
  assert.ok(figureOf().layout);
  assert.equal(figureOf().dataset.colours, "share");
}

test("at first the map is that of the head whose rows look most at one column", () => {
  const values = [...part("head").options].map(({ value }) => value);
  assert.deepEqual(values, heads.map(({ key, head }) => `${key} ${head}`));
  const sharpness = heads.map(({ attention, head }) => rowsOf(attention.weights_hts, head).slice(1)
    .reduce((sum, row, _, all) => sum + Math.max(...row) / all.length, 0));
  const best = sharpness.indexOf(Math.max(...sharpness));
  assert.equal(part("head").value, values[best]);
  assert.equal(part("head-of").hidden, false);
  showsHead(heads[best]);
  const groups = [...part("head").querySelectorAll("optgroup")].map((group) => group.children.length);
  assert.deepEqual(groups, places.map(() => form.heads));
});

test("each head can be chosen", () => {
  for (const one of heads) {
    fill(part("head"), `${one.key} ${one.head}`);
    showsHead(one);
    assert.ok(figureOf().querySelector("figcaption").textContent.startsWith(part("head").selectedOptions[0].textContent));
  }
});

// The stages of a row: the scores before and after ÷ √d, under the mask, and the weights.
function stagesOf({ attention, head, name, kind }, t) {
  const [query, keys] = [rowsOf(attention.queries_htd, head)[t], rowsOf(attention.keys_hsd, head)];
  const products = keys.map((key) => key.reduce((sum, value, n) => sum + value * query[n], 0));
  const causal = isCausal({ name, kind });
  const weights = rowsOf(attention.weights_hts, head)[t];
  const scores = products.map((product) => product / Math.sqrt(form.head_width));
  const seen = (values) => values.map((value, s) => (causal && s > t ? null : value));
  return [products, scores, seen(scores), seen(weights), seen(weights)];
}

test("one row is computed stage by stage", () => {
  for (const one of [heads.find(({ key }) => key.includes("self")), heads.at(-1)]) {
    fill(part("head"), `${one.key} ${one.head}`);
    const count = rowsOf(one.attention.weights_hts, one.head).length;
    assert.equal(choice().options.length, count);
    assert.equal(choice().selectedIndex, Math.floor(count / 2));
    const stage = () => part("head-map").querySelector("input");
    const show = (n) => {
      stage().value = n;
      tell(stage(), "input");
    };
    const mapsBelow = () => [...part("head-map").querySelectorAll(".side-by-side figure")];
    for (const t of [choice().selectedIndex, 0, count - 1]) {
      choice().selectedIndex = t;
      tell(choice(), "change");
      const stages = stagesOf(one, t);
      const values = rowsOf(one.attention.values_hsd, one.head);
      const mix = values[0].map((_, d) => stages[3].reduce((sum, weight, s) => sum + (weight ?? 0) * values[s][d], 0));
      const mixed = mapsBelow().at(-1);
      isNear(mixed.map.values[0], mix);
      assert.deepEqual(mixed.map.rows, [figureOf().map.rows[t]]);
      assert.ok(mixed.layout);
      if (isStill) {
        assert.equal(stage(), null);
        assert.equal(mapsBelow().length, 5);
        stages.slice(0, 4).forEach((numbers, n) => {
          isNear(mapsBelow()[n].map.values[0], numbers);
          assert.equal(mapsBelow()[n].dataset.colours, n === 3 ? "share" : "signed");
          assert.match(mapsBelow()[n].querySelector("figcaption").textContent, new RegExp(`^${n + 1} of 5`));
        });
        showsHead(one);
        continue;
      }
      assert.equal(mapsBelow().length, 1);
      assert.equal(Number(stage().value), 4); // the result is shown until a reader asks
      showsHead(one);
      stages.forEach((numbers, n) => {
        show(n);
        isNear(figureOf().map.values[t], numbers);
        const { full } = figureOf().map;
        if (n < 3) {
          assert.equal(full.row, t);
          isNear([full.greatest], [Math.max(...numbers.filter((value) => value !== null).map(Math.abs))]);
        } else assert.equal(full, null);
        assert.equal(mixed.closest("div:not(.side-by-side)").hidden, n < 4);
        assert.match(part("head-map").querySelector(".player .quiet").textContent, new RegExp(`^${n + 1} of 5`));
      });
      show(0); // another row puts the weights back
      choice().selectedIndex = (t + 1) % count;
      tell(choice(), "change");
      showsHead(one);
    }
  }
});

test("the flow is saved with the whole rows and the weights of the map", async () => {
  click([...part("flow").querySelectorAll("figcaption .save button")].find((button) => button.textContent === "CSV"));
  await until(() => saved.length);
  const lines = (await saved.at(-1).blob.text()).trimEnd().split("\r\n");
  const arrows = [...part("flow").querySelectorAll("li")].filter((item) => item.querySelector(".arrow"));
  assert.equal(lines.length, 1 + arrows.length + figureOf().map.rows.length);
  const cells = lines.map((line) => line.match(/("([^"]|"")*"|[^,]*)(,|$)/g).map((cell) => cell.replace(/,$/, "")));
  assert.equal(cells[1][0].toLowerCase(), "embedding");
  isNear(cells[1].slice(2, 2 + form.width).map(Number), inputRow);
  figureOf().map.values.forEach((line, n) => {
    const row = cells[1 + arrows.length + n];
    assert.equal(row[0], "attention");
    isNear(row.slice(2, 2 + line.length).map((text) => (text === "" ? null : Number(text))), line);
  });
  const title = document.querySelector(".first-screen h1").textContent;
  assert.equal(saved.at(-1).name, `${title.replaceAll(" ", "-")}.csv`);
});

test("a refused text says to which one the results belong", () => {
  const note = staleNote("a\u202eb");
  assert.equal(note.map((one) => one.textContent ?? one).join(""), " The dimmed results below are those of “a\\u202eb”.");
  assert.deepEqual(staleNote(undefined), []);
});
