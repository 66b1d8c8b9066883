// The page of a translation model: a user types sentences, chooses numbers and switches parts off.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, press, tell, textOf, until } from "../../../../support/page_in_node.mjs";
import { testNumbers } from "./numbers.mjs";
import {
  atOnce, choose, close, explained, isWritten, logSoftmax, numberIn, openedPage, percent, rowOf, rowsIn, sumOf,
    titlesOf,
} from "./opened_page.mjs";
import { testTraining } from "./training.mjs";
import { testTree } from "./tree.mjs";

const page = await openedPage((packed, html) => {
  Object.assign(packed.training, { pairs: [["je suis", "i am"], ["elle", "she ‮"]], loss: "my\u202eloss",
    r_drop: 0.5 });
  return html.replace('<figure class="flow-figure"', '<p data-first="other">another model</p>$&');
});
const { document, of, model, part, section, type, settled, stateText } = page;
const { tensorAt, fullNameOf } = of("places");
const { NOTHING_SWITCHED } = of("forward");
const { bos_id, eos_id } = model.vocabulary;
const SENTENCE = model.sentence;
const resultOf = (sentence, switches = NOTHING_SWITCHED, kept = null) =>
  atOnce(of("computing").computeSentenceSlices(model, sentence, null, switches, kept));
const own = resultOf(SENTENCE);
const piece = (id) => model.target.pieces[id];
const figures = () => [...part("matrices").children];
const origin = () => document.querySelector("[data-live=origin]");
const value = () => textOf(origin().querySelector("p.value"));
const button = (name) => [...document.querySelectorAll("button")].find((one) => textOf(one) === name && !one.hidden);
const showMatrix = async (key) => {
  fill(part("places"), key);
  await settled();
};

test("the page's own sentence is computed at once, and nothing is stale", () => {
  assert.equal(part("body").hidden, false);
  assert.equal(page.made(), explained.translation);
  assert.match(stateText(), /^The model is in this page: type any sentence\. Computed in \d+ ms\.$/);
  assert.equal(document.querySelector(".stale"), null);
  assert.equal(origin()?.hidden ?? true, true);
  assert.equal(part("tag-label").hidden, true); // the tokenizer has no tags
  assert.deepEqual([...part("tag").options].map(textOf), ["none"]);
  assert.equal(document.querySelector("[data-first=other]").hidden, false);
});

test("the overview compares greedy search with the beam search of the recipe", async () => {
  const overview = () => textOf(document.querySelector("[data-walk=after]"));
  const { translation, beam_translation: beam } = explained;
  await until(() => overview().includes(beam === translation ? "finds the same translation" : `finds “${beam}”`));
});

const piecesShown = () => [...part("pieces").children].map((li) => ({ isUnknown: li.getAttribute("class") === "unknown",
  piece: textOf(li.querySelector("b")), about: textOf(li.querySelector("span")),
    id: textOf(li.querySelector("small")) }));

test("each piece is shown with its characters, and unknown ones are marked", async () => {
  assert.deepEqual(piecesShown().map(({ piece: one, id }) => [one, id]),
    explained.source.ids.map((id, n) => [explained.source.texts[n], `id ${id}`]));
  const texts = piecesShown().map(({ about }) => /^“(.*)”/.exec(about)?.[1] ?? "");
  assert.equal(texts.join("").replaceAll("␣", " "), SENTENCE);
  assert.ok(piecesShown().every(({ isUnknown }) => !isUnknown));
  assert.equal(piecesShown().at(-1).about, " end of the sentence, always added");
  await type("je 日本 suis");
  const unknown = piecesShown().filter(({ isUnknown }) => isUnknown);
  assert.deepEqual(unknown.map(({ about, piece: one, id }) => [about, one, id]), [["“日本” unknown to the model",
    "<unk>", "id 1"]]);
  assert.match(textOf(document.querySelector("[data-flow=tokens]")), /日本 \(<unk>\)/);
  assert.equal(piecesShown().map(({ about }) => /^“(.*)”/.exec(about)?.[1] ?? "").join(""), "je␣日本␣suis");
});

test("typing dims the results at once, and the next ones come after a pause", async () => {
  await type(SENTENCE);
  fill(page.box, "je");
  assert.ok(part("body").classList.contains("stale"));
  assert.equal(part("body").getAttribute("aria-busy"), "true");
  assert.ok(document.querySelector("[data-first=flow]").classList.contains("stale"));
  await new Promise((done) => setTimeout(done, 60));
  assert.equal(page.made(), explained.translation); // still the former one
  fill(page.box, "je suis");
  await settled();
  assert.equal(page.made(), resultOf("je suis").translation);
  assert.equal(document.querySelector("#live .stale"), null);
  assert.equal(document.querySelector("[data-first=other]").hidden, true); // it is of the page's own sentence
  assert.deepEqual(piecesShown().map(({ id }) => Number(id.slice(3))), resultOf("je suis").ids);
  await type(SENTENCE);
  assert.equal(document.querySelector("[data-first=other]").hidden, false);
});

test("examples are the page's own sentence and those of the validation", async () => {
  const examples = [...document.querySelectorAll("[data-first=examples] button")];
  assert.deepEqual(examples.map(textOf), [SENTENCE, "elle", "je suis"]); // short ones first
  click(examples[1]);
  await settled();
  assert.equal(page.made(), resultOf("elle").translation);
});

test("a sentence longer than those of the training is computed, and the page says so", async () => {
  const ofLength = (count) => "a ".repeat(200).split(" ").slice(0, 200).reduce((text, word) =>
    (resultIds(`${text} ${word}`).length <= count ? `${text} ${word}` : text), "");
  const resultIds = (text) => [...model.source.encode(text), null];
  const { longest } = model.training;
  await type(ofLength(longest));
  assert.equal(piecesShown().length, longest);
  assert.ok(!stateText().includes("more than any"));
  await type(ofLength(longest + 1));
  assert.match(stateText(), new RegExp(`${longest + 1} pieces, .*of the training \\(${longest}\\)`));
});

test("too many pieces are refused, and the dimmed results are said to be those of the sentence before", async () => {
  await type(SENTENCE);
  fill(page.box, "日 ".repeat(200));
  await until(() => stateText().includes("the page takes 128"));
  assert.match(stateText(), /^These are \d+ pieces, but the page takes 128: shorten the sentence\./);
  assert.ok(stateText().endsWith(`those of “${SENTENCE}”.`));
  assert.ok(part("body").classList.contains("stale"));
  assert.equal(part("body").hasAttribute("aria-busy"), false); // nothing is computed
  assert.equal(piecesShown().length, own.ids.length);
  const { checkLength, MOST_PIECES } = of("computing");
  assert.equal(MOST_PIECES, 128);
  checkLength(128, "sentence");
  assert.throws(() => checkLength(129, "sentence"), /129 pieces.*shorten the sentence/);
  assert.throws(() => checkLength(8, "text", 7), /8 pieces, but the page takes 7: shorten the text/);
  await type(SENTENCE);
  assert.equal(document.querySelector("#live .stale"), null);
});

const probabilities = explained.trace.probabilities_btv[0];
const bestOf = (shares, count) => shares.map((share, id) => ({ share, id }))
  .sort((a, b) => b.share - a.share || a.id - b.id).slice(0, count);

test("each step has its input, the five most probable pieces and the chosen one", () => {
  assert.deepEqual(titlesOf(part("steps").querySelector("table")), ["step", "input", "most probable next", "chosen"]);
  const rows = [...part("steps").querySelectorAll("tbody tr")];
  assert.equal(rows.length, explained.chosen.ids.length);
  rows.forEach((row, t) => {
    const [label, input, candidates, chosen] = [...row.children];
    assert.deepEqual([label, input, chosen].map(textOf),
      [String(t + 1), explained.target_input.texts[t], explained.chosen.texts[t]]);
    const buttons = [...candidates.querySelectorAll("button")];
    const best = bestOf(probabilities[t], 5);
    assert.deepEqual(buttons.map((one) => textOf(one.querySelector("b"))), best.map(({ id }) => piece(id)));
    buttons.forEach((one, n) => {
      close(numberIn(textOf(one).split(" ").at(-1)), 100 * best[n].share, "share", 0.02);
      assert.equal(one.classList.contains("chosen"), best[n].id === explained.chosen.ids[t]);
      assert.ok(one.getAttribute("aria-label").startsWith(`${piece(best[n].id)}, `));
    });
  });
  assert.ok(part("steps").querySelector(".candidate.chosen"));
});

test("the lens reads each layer by the output matrix; the last one is the prediction", () => {
  const table = part("lens").querySelector("table");
  assert.deepEqual(titlesOf(table), ["step", "embedding", "layer 1", "layer 2", "chosen"]);
  assert.equal(table.querySelector("caption"), null);
  const matrix = model.weights["target_embedding.weight"];
  const bias = model.weights["output_bias"].data;
  const read = (row) => logSoftmax(Array.from({ length: matrix.shape[0] }, (_, id) =>
    sumOf(row.map((one, i) => one * matrix.data[id * row.length + i])) + bias[id])).map(Math.exp);
  const { decoder } = explained.trace;
  [...table.querySelectorAll("tbody tr")].forEach((line, t) => {
    const stages = [decoder.embedding.sum_btm, ...decoder.layers.map((one) => one.feed_forward_residual.output_btm)];
    stages.forEach((rows, n) => {
      const shares = read(rows[0][t]);
      const [best] = bestOf(shares, 1);
      const cell = line.children[n + 1];
      assert.equal(textOf(cell.querySelector("b")), piece(best.id));
      const [first, other] = textOf(cell).slice(piece(best.id).length).split("chosen: ");
      close(numberIn(first.replace(/[<>]/, "")), 100 * best.share, "best", 0.02);
      const chosen = explained.chosen.ids[t];
      assert.equal(cell.classList.contains("agrees"), best.id === chosen);
      assert.equal(other === undefined, best.id === chosen);
      if (other) close(numberIn(other.replace(/[<>]/, "")), 100 * shares[chosen], "of the chosen one", 0.02);
    });
    assert.equal(textOf(line.lastElementChild), explained.chosen.texts[t]);
  });
});

const attentions = ["encoder.layers.0.self_attention", "encoder.layers.1.self_attention", ...[0, 1].flatMap((n) =>
  [`decoder.layers.${n}.self_attention`, `decoder.layers.${n}.cross_attention`])];
// The background of each cell of a small map, by its row and column.
const sharesOf = (small) => new Map([...small.querySelectorAll("i")].map((one) =>
  [one.style.gridArea.split(" / ").map(Number).join(), Number(/\/ ([\d.]+)\)/.exec(one.style.background)[1])]));

function assertSmallMaps(numbersOf, full) {
  const maps = [...part("small-maps").children];
  assert.equal(maps.length, attentions.length);
  attentions.forEach((key, n) => {
    const { shape: [heads, rows, columns], data } = numbersOf(key);
    const buttons = [...maps[n].querySelectorAll("button:has(.small-map), button .small-map")].filter((one) =>
      one.localName === "button");
    assert.equal(buttons.length, heads);
    buttons.forEach((one, h) => {
      const shares = sharesOf(one);
      for (let place = 0; place < rows * columns; place++) {
        const share = Math.min(1, data[h * rows * columns + place] / full);
        const shown = shares.get([Math.floor(place / columns) + 1, (place % columns) + 1].join());
        if (share >= 0.021) close(shown, share, key, 0.006);
        else if (share < 0.019) assert.equal(shown, undefined);
      }
    });
  });
}

// ‖weight · value · Wᴼ‖ of each head, row and column, number by number.
function lengthsOf(traced, key, off = -1) {
  const { weights_hts: { shape, data }, values_hsd: values } = tensorAt(traced, key);
  const [heads, rows, columns] = shape;
  const d = values.shape[2];
  const output = model.weights[`${key}.output.weight`];
  return { shape, data: Array.from(data, (weight, n) => {
    const [h, s] = [Math.floor(n / columns / rows), n % columns];
    const taken = Array.from({ length: output.shape[0] }, (_, o) => sumOf(Array.from({ length: d }, (__, i) =>
      values.data[(h * columns + s) * d + i] * output.data[o * heads * d + h * d + i])));
    return h === off ? 0 : weight * Math.hypot(...taken);
  }) };
}

test("the small maps show the weights of all heads, or the lengths of what they take", async () => {
  assert.equal(textOf(part("measure-scale")), "full colour: 1");
  assertSmallMaps((key) => tensorAt(own.traced, key).weights_hts, 1);
  fill(part("measure"), "lengths");
  await settled();
  const lengths = new Map(attentions.map((key) => [key, lengthsOf(own.traced, key)]));
  const full = Math.max(...[...lengths.values()].flatMap(({ data }) => data));
  isWritten(textOf(part("measure-scale")).split(": ")[1], full);
  assertSmallMaps((key) => lengths.get(key), full);
  fill(part("measure"), "weights");
  await settled();
  assert.equal(textOf(part("measure-scale")), "full colour: 1");
});

test("a small map leads to its matrices", async () => {
  await showMatrix("encoder.layers.0.feed_forward.inner_tf");
  const maps = [...part("small-maps").children][2];
  assert.equal(textOf(maps.querySelector("figcaption")).startsWith("Decoder layer 1, self-attention"), true);
  click(maps.querySelectorAll("button[aria-label]")[1]);
  await until(() => figures().length === 4);
  assert.equal(part("places").value, "decoder.layers.0.self_attention.weights_hts");
  assert.equal(document.activeElement, part("places"));
});

test("every matrix can be shown: that of each head, or of all", async () => {
  for (const key of of("places").allPlaces(model).map((one) => one.key).filter((_, n) => n % 5 === 0)
    .concat("encoder.layers.1.self_attention.scores_hts", "decoder.layers.0.self_attention.weights_hts")) {
    await showMatrix(key);
    const { shape, data } = tensorAt(own.traced, key);
    const heads = shape.length === 3 ? 4 : 1;
    assert.equal(figures().length, heads, key);
    figures().forEach((figure, h) => {
      const title = figure.querySelector("figcaption").firstChild.textContent;
      assert.equal(title, heads === 4 ? `head ${h + 1}` : of("places").nameOf(key));
      const [rows, columns] = shape.slice(-2);
      assert.deepEqual(figure.map.values, Array.from({ length: rows }, (_, t) => Array.from({ length: columns },
        (__, s) =>
        data[(h * rows + t) * columns + s])).map((row) => row.map((one) => (one === -Infinity ? null : one))));
      assert.equal(figure.dataset.colours, key.endsWith("weights_hts") ? "share" : "signed");
      assert.equal(figure.map.columns === null, !/_hts$/.test(key));
      close(figure.greatest, Math.max(...figure.map.values.flat().map(Math.abs)), key);
    });
  }
  const groups = [...part("places").querySelectorAll("optgroup")].map((one) => [one.getAttribute("label"),
    [...one.querySelectorAll("option")].map((option) => option.value)]);
  assert.deepEqual(groups.map(([label]) => label), ["Encoder: input", "Encoder layer 1", "Encoder layer 2", "Memory",
    "Decoder: input", "Decoder layer 1", "Decoder layer 2", "Decoder: output"]);
  assert.ok(groups[1][1].every((key) => key.startsWith("encoder.layers.0.")));
  assert.ok(groups[6][1].every((key) => key.startsWith("decoder.layers.1.")) && groups[6][1].length > 15);
  const option = part("places").querySelector('[value="encoder.layers.0.self_attention.mix_htd"]');
  assert.equal(textOf(option), "Encoder layer 1, self-attention: mix: weights · values");
});

test("the arcs are those of the attention whose matrices are shown, or were shown last", async () => {
  await showMatrix("decoder.layers.0.cross_attention.mix_htd");
  const key = "decoder.layers.0.cross_attention.weights_hts";
  const count = () => part("arcs").querySelectorAll("path.arc").length;
  const expected = tensorAt(own.traced, key).data.filter((weight) => weight >= 0.02).length;
  assert.equal(count(), expected);
  assert.equal(textOf(part("arcs-name")), `${fullNameOf(key)}. `);
  assert.equal(part("legend").children.length, 4);
  await showMatrix("encoder.layers.0.feed_forward.inner_tf");
  assert.equal(textOf(part("arcs-name")), `${fullNameOf(key)}. `);
  assert.equal(count(), expected);
  const labels = [...part("arcs").querySelectorAll("text")].map(textOf);
  assert.equal(labels.length, own.pieces.target.length + own.pieces.source.length);
  assert.equal(part("arcs-save").querySelectorAll(".save").length, 1);
});

test("what is needed is compared with what is looked at", async () => {
  assert.equal(part("needed").children.length, 0); // not before it is asked for
  click(part("needed-fold").querySelector("summary"));
  await until(() => part("needed").querySelectorAll("figure.map").length === 2);
  await settled();
  const [needed, attention] = part("needed").querySelectorAll("figure.map");
  assert.deepEqual(needed.map.rows, own.chosen.map(piece));
  assert.deepEqual(needed.map.columns, own.pieces.source.slice(0, -1));
  assert.deepEqual(attention.map.columns, own.pieces.source);
  assert.deepEqual([needed, attention].map((one) => one.dataset.colours), ["signed", "share"]);
  const logsOf = (ids) => {
    const { logits_tv } = atOnce(of("forward").traceSlices(model, ids, [bos_id, ...own.chosen.slice(0, -1)]));
    return own.chosen.map((id, t) => logSoftmax(rowOf(logits_tv, t))[id]);
  };
  const whole = logsOf(own.ids);
  own.ids.slice(0, -1).forEach((_, s) => {
    const without = logsOf(own.ids.with(s, model.source.described.unk_id));
    whole.forEach((log, t) => close(needed.map.values[t][s], log - without[t], `${t}, ${s}`, 1e-4));
  });
  const heads = [0, 1].flatMap((n) => explained.trace.decoder.layers[n].cross_attention.weights_bhts[0]);
  attention.map.values.forEach((row, t) => row.forEach((share, s) =>
    close(share, sumOf(heads.map((head) => head[t][s])) / heads.length, `${t}, ${s}`, 1e-4)));
  await type("a ".repeat(39));
  assert.equal(piecesShown().length, 40);
  await until(() => part("needed").querySelectorAll("figure.map").length === 2);
  await type("a ".repeat(40));
  assert.equal(part("needed").querySelector("figure"), null);
  assert.match(textOf(part("needed")), /41 pieces, .* up to 40/);
  click(part("needed-fold").querySelector("summary"));
  await type(SENTENCE);
  assert.equal(part("needed").querySelector("figure"), null); // it is not recomputed while it is folded
});

test("a click on a number opens its origin within its map", async () => {
  const key = "encoder.layers.0.self_attention.weights_hts";
  await showMatrix(key);
  const figure = figures()[2];
  await choose(figure, 3, 1);
  const shown = origin();
  assert.equal(shown.hidden, false);
  assert.equal(shown.parentElement, figure);
  assert.equal(document.activeElement, shown);
  const title = shown.querySelector("h3");
  assert.equal(document.scrolledTo, title);
  assert.equal(title.getAttribute("aria-level"), "2");
  const { source } = own.pieces;
  assert.equal(textOf(title), `Encoder layer 1, self-attention: weights, head 3: row “${source[3]}”, “${source[1]}”`);
  isWritten(value(), figure.map.values[3][1]);
  const marked = [...shown.querySelectorAll("tr[aria-current]")];
  assert.deepEqual(marked.map((row) => textOf(row.querySelector("th"))), [`${source[1]} (asked)`]);
  const shares = rowsIn(shown.querySelector("table")).map((row) => numberIn(row.at(-1)));
  close(sumOf(shares.slice(0, -1)), 1, "shares", 1e-3);
  close(shares.at(-1), 1, "their sum");
  assert.equal(shares.length, source.length + 1);
  assert.equal(button("← previous number"), undefined);
  assert.equal(button("next number →"), undefined);
});

test("numbers lead back to the numbers that went in, and buttons go back and forth", async () => {
  const seen = [];
  const note = () => seen.push([textOf(origin().querySelector("h3")), value()]);
  note();
  const figure = figures()[2];
  while (origin().querySelector("button.number")) {
    const next = origin().querySelector("button.number");
    const written = textOf(next);
    click(next);
    assert.equal(value(), written);
    assert.equal(origin().parentElement, figure);
    assert.equal(document.activeElement, origin());
    note();
    assert.ok(seen.length < 40);
  }
  assert.match(seen.at(-1)[0], /embedding × √width|positions/);
  assert.match(seen[1][0], /scores, head 3: row/);
  assert.ok(seen.length > 3);
  for (let n = seen.length - 2; n >= 0; n--) {
    click(button("← previous number"));
    assert.deepEqual([textOf(origin().querySelector("h3")), value()], seen[n]);
    assert.equal(document.activeElement, origin());
    const before = [...origin().querySelectorAll("tr[aria-current] th")].map(textOf).filter((text) =>
      text.includes("shown before"));
    assert.equal(before.length > 0, true, seen[n][0]);
  }
  assert.equal(button("← previous number"), undefined);
  for (let n = 1; n < seen.length; n++) {
    click(button("next number →"));
    assert.deepEqual([textOf(origin().querySelector("h3")), value()], seen[n]);
  }
  assert.equal(button("next number →"), undefined);
  click(button("← previous number"));
  click(button("← previous number"));
  click(origin().querySelectorAll("button.number")[1]); // another way
  assert.equal(button("next number →"), undefined);
  await choose(figure, 0, 0); // another number of the map begins anew
  assert.equal(button("← previous number"), undefined);
});

const lit = () => figures().flatMap((figure, n) => (figure.lit ?? []).map(({ row, column }) =>
  [n, row, column].join()));

test("what went into a number is marked in its matrix", async () => {
  await showMatrix("decoder.layers.0.cross_attention.scores_hts");
  await choose(figures()[2], 1, 3);
  assert.deepEqual(titlesOf(origin().querySelector("table")), ["term", "query", "key", "result"]);
  assert.deepEqual(rowsIn(origin().querySelector("table")).map(([label]) => label).slice(-2), ["÷ √8", "this number"]);
  for (const [name, row] of [["queries_htd", 1], ["keys_hsd", 3]]) {
    await showMatrix(`decoder.layers.0.cross_attention.${name}`);
    assert.deepEqual(lit(), Array.from({ length: 8 }, (_, column) => [2, row, column].join()));
    assert.equal(part("matrices").nextElementSibling, origin()); // its map is no longer there
  }
  assert.equal(textOf(origin().querySelector("h3")).includes("row “"), true);
  await showMatrix("decoder.layers.0.cross_attention.values_hsd");
  assert.deepEqual(lit(), []);
  await showMatrix("decoder.layers.0.cross_attention.weights_hts");
  await choose(figures()[1], 0, 2);
  assert.deepEqual(lit(), []);
  await type("je");
  assert.equal(origin().hidden, true);
  assert.deepEqual(lit(), []);
  await type(SENTENCE);
});

test("a term of another head, or of a map of the same column, is named so", async () => {
  const names = () => rowsIn(origin().querySelector("table")).map(([label]) => label);
  await showMatrix("encoder.layers.0.self_attention.output_tm");
  await choose(figures()[0], 2, 5);
  assert.match(textOf(origin().querySelector("h3")), /self-attention: output: row “h”, number 5$/);
  assert.match(names()[0], /^head [1-4], [0-7]$/);
  assert.deepEqual(titlesOf(origin().querySelector("table")).length, 4);
  await showMatrix("encoder.embedding.sum_tm");
  await choose(figures()[0], 2, 5);
  assert.deepEqual(names().slice(0, 2).toSorted(), ["embedding × √width", "positions"]);
  click(origin().querySelectorAll("button.number")[names()[0] === "positions" ? 1 : 0]);
  assert.deepEqual(names(), ["the matrix", "this number"]);
  assert.equal(origin().querySelector("button.number"), null); // the beginning
});

test("Enter in a map opens a number; those of other sections, too", async () => {
  location.hash = `#${document.querySelectorAll("main > section.drawn")[2].id}`;
  const figure = await until(() => document.querySelector("main > section.drawn figure.map"));
  await until(() => figure.layout);
  press(figure.querySelector(".grid"), "Enter");
  assert.equal(origin().hidden, false);
  assert.equal(origin().parentElement, figure);
  isWritten(value(), figure.map.values[0][0]);
  location.hash = "#live";
  await until(() => section.classList.contains("here"));
});

test("a candidate opens its probability, below the steps", async () => {
  const candidates = part("steps").querySelectorAll("tbody tr")[1].querySelectorAll("button");
  click(candidates[2]);
  assert.equal(part("steps").nextElementSibling, origin());
  const [, , third] = bestOf(probabilities[1], 3);
  assert.equal(textOf(origin().querySelector("h3")).endsWith(`“${piece(third.id)}”`), true);
  assert.equal(textOf(origin().querySelector("h3")).startsWith("probabilities: row “"), true);
  assert.equal(origin().querySelector("h3").hasAttribute("aria-level"), false);
  close(numberIn(value()), third.share, "value", 1e-3);
  click(origin().querySelector("tr[aria-current] button.number"));
  assert.equal(textOf(origin().querySelector("h3")).startsWith("logits"), true);
  assert.equal(part("matrices").nextElementSibling, origin()); // a logit is no candidate
  click(candidates[0]);
  assert.ok(button("← previous number"));
  await type(`${SENTENCE} .`);
  assert.equal(origin().hidden, true);
  await type(SENTENCE);
});

const boxOf = (label, n = 0) => [...part("switches").querySelectorAll("label")]
  .filter((one) => textOf(one).trim() === label)[n].querySelector("input");
const effect = () => [...part("effect").children].map(textOf);

test("every part has a switch that is on", () => {
  assert.deepEqual(effect(), ["All parts are on."]);
  const sets = [...part("switches").children].map((one) => [textOf(one.querySelector("legend")),
    [...one.querySelectorAll("label")].map((label) => textOf(label).trim())]);
  const heads = (name) => [1, 2, 3, 4].map((h) => `${name}, head ${h}`);
  const rest = (name) => `residual connection of the ${name}`;
  const encoder = [...heads("self-attention"), rest("self-attention"), rest("feed-forward")];
  const decoder = [...heads("self-attention"), rest("self-attention"), ...heads("cross-attention"),
    rest("cross-attention"), rest("feed-forward")];
  assert.deepEqual(sets, [
    ["All layers", ["positions are added", "scores are divided by √d", "the mask hides later rows"]],
    ["Encoder layer 1", encoder], ["Encoder layer 2", encoder], ["Decoder layer 1", decoder], ["Decoder layer 2",
      decoder]]);
  assert.ok([...part("switches").querySelectorAll("input")].every((one) => one.checked));
});

function assertEffect(switches) {
  const changed = resultOf(SENTENCE, switches, own);
  const free = resultOf(SENTENCE, switches);
  const [trained, yours, largest] = effect();
  const lines = [[trained, "As trained: ", own], [yours, "With your changes: ", free]];
  for (const [line, label, result] of lines) {
    const [, text, logs] = new RegExp(`^${label}(.*) log-probability (\\S+) nats$`).exec(line);
    assert.equal(text, result.translation || "(nothing)");
    const lastRow = (read) => rowOf(atOnce(of("forward").traceSlices(model, result.ids, read,
      result.switches)).logits_tv, read.length - 1);
    close(numberIn(logs), sumOf(result.chosen.map((id, t) => // without the mask, rows would see later pieces
      logSoftmax(lastRow([bos_id, ...result.chosen.slice(0, t)]))[id])), line, 1e-4);
  }
  const [before, after] = [own, changed].map(({ traced }) => traced.probabilities_tv.data);
  const most = before.reduce((best, _, n) => (Math.abs(after[n] - before[n]) > Math.abs(after[best] - before[best]) ? n
    : best), 0);
  const [t, id] = [Math.floor(most / model.target.pieces.length), most % model.target.pieces.length];
  const sign = after[most] < before[most] ? "−" : "+";
  assert.equal(largest.replace(/[\d.]+(e−\d+)?\)\.$/, ""),
    `The largest change of a probability is in step ${t + 1}: ${piece(id)} ` +
    `from ${percent(before[most])} to ${percent(after[most])} (${sign}`);
  isWritten(/\([+−](.*)\)\.$/.exec(largest)[1], Math.abs(after[most] - before[most]));
  return changed;
}

test("a part that is switched off changes the translation, and stands beside the trained model", async () => {
  const key = "decoder.layers.1.cross_attention.weights_hts";
  await showMatrix(key);
  const all = [["positions are added", 0, { positions: false }],
    ["scores are divided by √d", 0, { scaledScores: false }],
    ["self-attention, head 2", 1, { headsOff: new Set(["encoder.1.self_attention.1"]) }],
    ["cross-attention, head 4", 1, { headsOff: new Set(["decoder.1.cross_attention.3"]) }],
    ["residual connection of the feed-forward", 2, { residualsOff: new Set(["decoder.0.feed_forward"]) }],
    ["the mask hides later rows", 0, { mask: false }]];
  for (const [label, n, change] of all) {
    const box = boxOf(label, n);
    click(box);
    assert.equal(box.checked, false);
    await settled();
    const changed = assertEffect({ ...NOTHING_SWITCHED, ...change });
    assert.deepEqual(figures().map((one) => one.querySelector("figcaption").firstChild.textContent),
      [1, 2, 3, 4].flatMap((h) =>
      [`head ${h}, as trained`, `head ${h}, with your changes`]));
    figures().forEach((figure, place) => {
      const { shape: [, rows, columns], data } = tensorAt((place % 2 ? changed : own).traced, key);
      const h = Math.floor(place / 2);
      assert.deepEqual(figure.map.values.flat(), [...data.subarray(h * rows * columns, (h + 1) * rows * columns)]);
      assert.equal(figure.greatest, figures()[place ^ 1].greatest); // both of a head have one scale
    });
    assert.ok(textOf(part("measure-scale")).endsWith(", with your changes"));
    assert.ok(textOf(part("arcs-name")).endsWith(", with your changes. "));
    assert.equal(textOf(part("lens").querySelector("caption")), "with your changes");
    assert.deepEqual(titlesOf(part("steps").querySelector("table")),
      ["step", "input", "most probable, as trained", "with your changes", "chosen"]);
    const cells = [...part("steps").querySelectorAll("tbody tr")].map((row) => row.children[3]);
    cells.forEach((cell, t) => assert.deepEqual([...cell.querySelectorAll("b")].map(textOf),
      bestOf(rowOf(changed.traced.probabilities_tv, t), 5).map(({ id }) => piece(id))));
    assertSmallMaps((one) => tensorAt(changed.traced, one).weights_hts, 1);
    click(box);
    await settled();
    assert.deepEqual(effect(), ["All parts are on."]);
    assert.equal(figures().length, 4);
    assert.ok(!textOf(part("arcs-name")).includes("changes"));
  }
});

test("a number of the changed model has its origin in that model", async () => {
  click(boxOf("positions are added"));
  click(boxOf("self-attention, head 1"));
  await settled();
  await showMatrix("encoder.embedding.sum_tm");
  await choose(figures()[1], 1, 2);
  isWritten(value(), figures()[1].map.values[1][2]);
  assert.deepEqual(rowsIn(origin().querySelector("table")).map(([label]) => label), ["the matrix", "this number"]);
  await showMatrix("encoder.layers.0.self_attention.mix_htd");
  await choose(figures()[1], 1, 2);
  assert.match(textOf(origin()), /switched off/);
  await choose(figures()[0], 1, 2); // as trained
  isWritten(value(), figures()[0].map.values[1][2]);
  assert.ok(!textOf(origin()).includes("switched off"));
  await showMatrix("encoder.layers.0.self_attention.weights_hts");
  const marked = figures().filter((one) => one.lit?.length);
  assert.deepEqual(marked.map((one) => figures().indexOf(one)), [0]); // not in the map of the changed model
  fill(part("measure"), "lengths");
  await settled();
  const changed = resultOf(SENTENCE, { ...NOTHING_SWITCHED, positions: false,
    headsOff: new Set(["encoder.0.self_attention.0"]) }, own);
  const lengths = new Map(attentions.map((key, n) => [key, lengthsOf(changed.traced, key, n ? -1 : 0)]));
  const full = Math.max(...[...lengths.values()].flatMap(({ data }) => data));
  assertSmallMaps((key) => lengths.get(key), full);
  isWritten(/: (.*), with/.exec(textOf(part("measure-scale")))[1], full);
  fill(part("measure"), "weights");
  click(button("All on again"));
  await settled();
  assert.deepEqual(effect(), ["All parts are on."]);
  assert.ok([...part("switches").querySelectorAll("input")].every((one) => one.checked));
});

test("the changed model is computed as soon as any part is off", () => {
  const { isSwitched, freshSwitches } = of("switches_view");
  assert.equal(isSwitched(freshSwitches()), false);
  for (const change of [{ positions: false }, { scaledScores: false }, { mask: false }, { headsOff: new Set(["a"]) },
    { residualsOff: new Set(["a"]) }, { headsOff: new Set(["a"]), residualsOff: new Set(["b"]) }, { positions: false,
      mask: false }]) {
    assert.equal(isSwitched({ ...freshSwitches(), ...change }), true);
  }
});

test("a change without an effect is said to have none", () => {
  const { showEffect } = of("switches_view");
  showEffect({ part, plain: own, changed: own, model });
  assert.equal(effect().at(-1), "No probability changes.");
  showEffect({ part, plain: own, changed: null, model });
});

test("a sentence typed during a computation replaces it", async () => {
  fill(page.box, "est ".repeat(60));
  await until(() => stateText() === "Computing …");
  await type("je suis");
  assert.equal(page.made(), resultOf("je suis").translation);
  await type(SENTENCE);
});

testTree(page);
testTraining(page, own);
testNumbers(page, own, { ...NOTHING_SWITCHED,
  headsOff: new Set(["decoder.1.cross_attention.1"]),
  residualsOff: new Set(["encoder.0.feed_forward"]), positions: false, scaledScores: false, mask: false });
