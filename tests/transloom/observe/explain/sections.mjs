// The sections of a page with a recorded trace: the maps and the numbers in texts, recomputed from the trace.
// Argument 1 is the page's file.

import assert from "node:assert/strict";
import { test } from "node:test";

import { modulesOfPage, open, textOf } from "../../../support/page_in_node.mjs";

open(process.argv[2]);
const of = (name) => modulesOfPage()[`explain/walk/${name}.js`];
const { facts } = of("walk");
const { placesOf, sectionElement, sectionsOf } = of("section");
const trace = await of("trace").recordedTrace(facts, facts.recorded);
const { form, limits, family } = facts;
const isTranslation = family === "translation";
const causal = family === "continuation";
const stack = trace.stack ?? trace.encoder;
const { texts: pieces, ids } = trace.source ?? trace.pieces;
const d = form.head_width;
const heads = Array.from({ length: form.heads }, (_, head) => head);

const drawAll = (some) => sectionsOf[family](some).slice(1).map((section, n) => {
  const made = sectionElement(section, n + 2);
  made.draw();
  return made;
});
const sections = drawAll(trace);
const named = (name, all = sections) => all.find(({ dataset }) => dataset.name === name);
const mapsIn = (node) => [...node.querySelectorAll("figure.map")];
const titleOf = (figure) => figure.querySelector("figcaption").firstChild.textContent;
const mapsNamed = (node, title) => mapsIn(node).filter((figure) => titleOf(figure) === title);
const words = (node) => textOf(node).replaceAll(/\s+/g, " ");
const number = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits).replace(/^-(?=[0.]+$)/, "") : `${value}`).replace("-", "−");
const percent = (share) => (share > 0 && share < 0.00005 ? "< 0.01%" : `${number(100 * share)}%`);
const count = (value) => value.toLocaleString("en");
const sum = (values) => values.reduce((total, value) => total + value, 0);
const length = (values) => Math.hypot(...values);
const dot = (a, b) => sum(a.map((value, n) => value * b[n]));
const softmax = (values) => values.map((value) => Math.exp(value) / sum(values.map(Math.exp)));
const says = (node, text) => assert.ok(words(node).includes(text), `“${text}” is not in: ${words(node).slice(0, 3000)}`);

function rowsOf({ shape, data, kept = shape }, head = 0) {
  const [height, width] = kept.slice(-2);
  return Array.from({ length: height }, (_, r) => [...data.slice((head * height + r) * width, (head * height + r + 1) * width)]);
}
const masked = (rows) => rows.map((line, t) => line.map((value, s) => (s > t || value === -Infinity ? null : value)));
const seen = (rows) => rows.map((line) => line.map((value) => (value === -Infinity ? null : value)));

function isMap(figure, values, { rows, columns = null, isShare = false }) {
  assert.ok(figure, "no such map");
  assert.deepEqual(figure.map.values, values);
  if (rows) assert.deepEqual(figure.map.rows, rows);
  assert.deepEqual(figure.map.columns, columns);
  assert.equal(figure.dataset.colours, isShare ? "share" : "signed");
}

test("numbers of the trace fit each other", () => { // what was unpacked is what the model computed
  for (const { self_attention: attention, self_attention_residual: residual, feed_forward: network,
    feed_forward_residual: second } of stack.layers) {
    for (const head of heads) {
      const [queries, keys, values, scores, weights, mix] = ["queries_htd", "keys_hsd", "values_hsd", "scores_hts", "weights_hts",
        "mix_htd"].map((name) => rowsOf(attention[name], head));
      scores.forEach((line, t) => line.forEach((score, s) => {
        if (causal && s > t) return assert.equal(score, -Infinity);
        assert.ok(Math.abs(score - dot(queries[t], keys[s]) / Math.sqrt(d)) < 1e-4);
      }));
      weights.forEach((line, t) => softmax(scores[t]).forEach((weight, s) => assert.ok(Math.abs(weight - line[s]) < 1e-5)));
      mix.forEach((line, t) => line.forEach((value, i) =>
        assert.ok(Math.abs(value - sum(weights[t].map((weight, s) => weight * values[s][i]))) < 1e-4)));
    }
    for (const [{ output_tm }, one] of [[attention, residual], [network, second]]) {
      rowsOf(one.sum_tm).forEach((line, t) => line.forEach((value, i) =>
        assert.ok(Math.abs(value - rowsOf(one.input_tm)[t][i] - rowsOf(output_tm)[t][i]) < 1e-4)));
    }
  }
});

// The maps of a head's fold, and its weights among those of all heads.
function showsHeads(node, attention, rows, columns, isCausal, fold = true) {
  for (const head of heads) {
    const weights = rowsOf(attention.weights_hts, head);
    const expected = isCausal ? masked(weights) : weights;
    isMap(mapsNamed(node, `head ${head + 1}`)[0], expected, { rows, columns, isShare: true });
    if (!fold) continue;
    const inside = [...node.querySelectorAll("details")].find((one) => one.textContent.startsWith(`head ${head + 1}: queries`));
    for (const [title, name] of [["queries", "queries_htd"], ["keys", "keys_hsd"], ["values", "values_hsd"],
      ["mix, weights · values", "mix_htd"]]) {
      isMap(mapsNamed(inside, title)[0], rowsOf(attention[name], head), { rows });
    }
    isMap(mapsNamed(inside, `scores, QKᵀ ÷ √${d}`)[0], seen(rowsOf(attention.scores_hts, head)), { rows, columns });
    isMap(mapsNamed(inside, "weights")[0], expected, { rows, columns, isShare: true });
  }
}

// The largest weight of all heads among the allowed ones.
function sharpest(attention, allowed) {
  let best = { weight: -1 };
  for (const head of heads) rowsOf(attention.weights_hts, head).forEach((line, t) => line.forEach((weight, s) => {
    if (allowed(t, s) && weight > best.weight) best = { head, t, s, weight };
  }));
  return best;
}

test("each layer has the maps of its attention, and the largest weight in words", () => {
  stack.layers.forEach(({ self_attention: attention, self_attention_residual: residual }, n) => {
    const section = named(`Layer ${n + 1}: attention`);
    showsHeads(section, attention, pieces, pieces, causal);
    const { head, t, s, weight } = sharpest(attention, (row) => !causal || row > 0);
    says(section, `in head ${head + 1}, “${pieces[t]}” takes ${number(weight)} of its mix from “${pieces[s]}”`);
    isMap(mapsNamed(section, "output of the attention")[0], rowsOf(attention.output_tm), { rows: pieces });
    const normed = mapsNamed(section, `${form.norm_label} of the input`);
    assert.equal(normed.length, form.pre_norm ? 1 : 0);
    if (form.pre_norm) isMap(normed[0], rowsOf(residual.normed_tm), { rows: pieces });
    says(section, form.groups === form.heads ? `its own ${d} columns of each matrix` : `Groups of ${form.heads / form.groups} heads share`);
  });
});

test("one row of the first layer is computed by hand", () => {
  const { scores_hts, weights_hts } = stack.layers[0].self_attention;
  const place = causal ? ids.length - 1 : 0;
  const [scores, weights] = [rowsOf(scores_hts)[place], rowsOf(weights_hts)[place]];
  const [table, ...more] = named("Layer 1: attention").querySelectorAll("table");
  assert.equal(more.length, 0);
  assert.equal(named("Layer 2: attention").querySelectorAll("table").length, 0);
  const rows = [...table.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
  assert.deepEqual(rows.slice(0, -1), scores.map((score, s) =>
    [pieces[s], number(score * Math.sqrt(d)), number(score), number(weights[s], 3)]));
  assert.deepEqual(rows.at(-1), [`all ${scores.length} keys`, "", "", "1.000"]);
  const marked = [...table.querySelectorAll("tbody tr")].findIndex((row) => row.className === "marked");
  assert.equal(marked, weights.indexOf(Math.max(...weights)));
  says(named("Layer 1: attention"), `the query of “${pieces[place]}” in head 1`);
});

test("each layer has its sums, norms and network in the order of computation", () => {
  const mean = (values) => sum(values) / values.length;
  const square = (values) => Math.sqrt(mean(values.map((value) => value ** 2)));
  const spread = (values) => square(values.map((value) => value - mean(values)));
  stack.layers.forEach(({ self_attention, self_attention_residual: first, feed_forward, feed_forward_residual: second }, n) => {
    const section = named(`Layer ${n + 1}: the rest`);
    const stages = (output, residual) => (form.pre_norm ? [residual.normed_tm, output, residual.sum_tm] : [output, residual.sum_tm, residual.normed_tm]);
    const [one, two] = [stages(self_attention.output_tm, first), stages(feed_forward.output_tm, second)];
    const inner = feed_forward.inner_tf;
    const tensors = [first.input_tm, ...one, ...(form.pre_norm ? [two[0], inner, two[1], two[2]] : [inner, ...two])];
    const maps = mapsIn(section);
    assert.equal(maps.length, tensors.length);
    maps.forEach((figure, m) => isMap(figure, rowsOf(tensors[m]), { rows: pieces }));
    const [x, y] = [form.pre_norm ? first.input_tm : first.sum_tm, first.normed_tm].map((tensor) => rowsOf(tensor)[0]);
    if (form.norm_kind === "rms") says(section, `“${pieces[0]}” is ${number(square(x))} before the norm, and ${number(square(y))} after it`);
    else {
      const [before, after] = [x, y].map((row) => `mean ${number(mean(row))} and standard deviation ${number(spread(row))}`);
      says(section, `“${pieces[0]}” has ${before} before the norm, and ${after} after it`);
    }
    if (form.is_gated) return says(section, "SwiGLU");
    const positive = rowsOf(inner)[0].filter((value) => value > 0).length;
    says(section, `For “${pieces[0]}”, ${positive} of ${form.inner_width} inner numbers are above zero`);
    assert.equal(words(section).includes("to zero (ReLU)"), form.activation === "relu");
  });
});

test("every box leads to a heading or fold of the section that shows it", () => {
  const places = placesOf(sectionsOf[family](trace).slice(1));
  for (const box of facts.boxes) assert.ok(places.has(box), box);
  const ids_ = new Set(sections.flatMap((section) => [section.id, ...[...section.querySelectorAll("[id]")].map(({ id }) => id)]));
  for (const [box, place] of places) assert.ok(ids_.has(place), `${box}: ${place}`);
});

test("the overview says where the weights are, and what the model is", () => {
  const [overview] = sectionsOf[family](trace);
  const table = overview.after().flat(Infinity).find(({ localName }) => localName === "table");
  const cells = Object.fromEntries([...table.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent)));
  const names = facts.stacks.length > 1 ? ["the encoder's layers", "the decoder's layers"] : ["the layers"];
  const outside = facts.parameters - sum(facts.stacks);
  assert.equal(cells.parameters, `${count(facts.parameters)}: ${facts.stacks.map((one, n) => `${count(one)} in ${names[n]}, `).join("")}` +
    `and ${count(outside)} in embeddings and other parts outside the layers`);
  assert.equal(cells.heads, `${form.heads}, each ${d} wide${form.groups === form.heads ? "" : `; ${form.groups} of keys and values`}`);
  assert.equal(cells.normalisation.startsWith(`${form.norm}, `), form.norm_kind !== "layer");
  const about = overview.after().flat(Infinity).map(words).join(" ");
  assert.ok(!about.includes("To stay small"));
  if (!isTranslation) return;
  assert.ok(about.includes(trace.beam === trace.made ? "finds the same translation" : `finds “${trace.beam}”`));
  const unsearched = sectionsOf[family]({ ...trace, beam: null })[0].after().flat(Infinity).map(words).join(" ");
  assert.ok(!unsearched.includes("beam search"));
  const same = sectionsOf[family]({ ...trace, beam: trace.made })[0].after().flat(Infinity).map(words).join(" ");
  assert.ok(same.includes("finds the same translation"));
});

test("a page of a large model draws a part, and says which", () => {
  const small = { pieces: 3, attended: 4, numbers: 8, heads: 2, layers: 1, candidates: 3 };
  const all = drawAll({ ...trace, model: { ...facts, limits: small } });
  const section = named("Layer 1: attention", all);
  assert.equal(named("Layer 2: attention", all), undefined);
  const { self_attention: attention } = stack.layers[0];
  const [map, other] = [mapsNamed(section, "head 1")[0], mapsNamed(section, "head 3")[0]];
  assert.equal(other, undefined);
  const weights = rowsOf(attention.weights_hts);
  const cut = weights.slice(0, 4).map((line) => line.slice(0, 4));
  isMap(map, causal ? masked(cut) : cut, { rows: pieces.slice(0, 4), columns: pieces.slice(0, 4), isShare: true });
  const small_ = (figure) => figure.querySelector("figcaption small").textContent;
  const missing = Math.ceil(Math.max(...weights.slice(0, 4).map((line) => sum(line.slice(4)))) * 1000) / 1000;
  const n = pieces.length;
  assert.equal(small_(map), `${n} × ${n} · the first 4 of ${n} rows, the first 4 of ${n} columns` +
    (missing ? `; the others have up to ${number(missing, 3)} of a row` : ""));
  const [scores] = mapsNamed(section, `scores, QKᵀ ÷ √${d}`);
  isMap(scores, seen(rowsOf(attention.scores_hts).slice(0, 3).map((line) => line.slice(0, 4))),
    { rows: pieces.slice(0, 3), columns: pieces.slice(0, 4) });
  assert.equal(small_(scores), `${n} × ${n} · the first 3 of ${n} rows, the first 4 of ${n} columns`);
  const [queries] = mapsNamed(section, "queries"); // all heads together have 8 numbers
  isMap(queries, rowsOf(attention.queries_htd).slice(0, 3).map((line) => line.slice(0, 4)), { rows: pieces.slice(0, 3) });
  assert.equal(small_(queries), `${n} × ${d} · the first 3 of ${n} rows, the first 4 of ${d} columns`);
  const [output] = mapsNamed(section, "output of the attention");
  isMap(output, rowsOf(attention.output_tm).slice(0, 3).map((line) => line.slice(0, 8)), { rows: pieces.slice(0, 3) });
  const rows = [...section.querySelector("table").querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
  const place = causal ? 2 : 0;
  const listed = rowsOf(attention.weights_hts)[place].slice(0, causal ? 3 : 4);
  assert.deepEqual(rows.slice(0, listed.length).map((row) => [row[0], row[3]]), listed.map((weight, s) => [pieces[s], number(weight, 3)]));
  const rest = n - listed.length;
  if (!causal) assert.deepEqual([rows.at(-2)[0], rows.at(-2)[3]], [`${rest} other keys, not listed, together`,
    number(sum(rowsOf(attention.weights_hts)[place].slice(4)), 3)]);
  const about = sectionsOf[family]({ ...trace, model: { ...facts, limits: small } })[0].after().flat(Infinity).map(words).join(" ");
  for (const said of [`the first 2 of ${form.heads} heads`, `the first 8 of ${form.width} numbers of a vector`,
    `the first 8 of ${form.inner_width} inner numbers`]) assert.ok(about.includes(said), said);
  const one = drawAll({ ...trace, model: { ...facts, limits: { ...small, numbers: 1 } } });
  assert.equal(mapsNamed(named("Layer 1: attention", one), "queries")[0].map.values[0].length, 1); // at least
});

const questions = of("questions").questionsOf(trace);
const answers = (start) => questions.find(([asked]) => asked.includes(start))?.[1];
const answer = (start, text) => assert.ok(answers(start)?.includes(text), `“${text}” is not in: ${answers(start)}`);

test("questions about the input are answered with its numbers", () => {
  answer("one-hot", `“${pieces[0]}” would be ${count(facts.embedding_rows)} numbers, a 1 at place ${ids[0]}`);
  const { embedding } = stack;
  if (facts.has_waves) {
    const waves = (p) => Array.from({ length: form.width / 2 }, (_, i) => p * 10000 ** ((-2 * i) / form.width))
      .flatMap((angle) => [Math.sin(angle), Math.cos(angle)]);
    const last = ids.length - 1;
    answer("positions show nearness", `For positions 0 and 1 it is ${number(dot(waves(0), waves(1)))}, for 0 and ${last} ${number(dot(waves(0), waves(last)))}.`);
    answer("positions show nearness", `itself it is ${number(form.width / 2)}`);
    const scaled = length(rowsOf(embedding.scaled_tm ?? embedding.tokens_tm)[0]);
    answer("multiplied by √", `has the length ${number(scaled)} after the multiplication, and ${number(scaled / Math.sqrt(form.width))} before`);
    const two = { ...trace, source: { ids: ids.slice(0, 2), texts: pieces.slice(0, 2) } };
    if (isTranslation) {
      const said = of("questions").questionsOf(two).find(([asked]) => asked.includes("nearness"))[1];
      assert.ok(said.includes(`0 and 1 it is ${number(dot(waves(0), waves(1)))}. For a position`), said);
    }
  } else if (!form.turned) {
    const [token, position] = [embedding.tokens_tm, embedding.positions_tm].map((one) => number(length(rowsOf(one)[0])));
    answer("order of the pieces", `length ${token}, and the row of its position has the length ${position}`);
  } else answer("how does the model know the order", `${d / 2} pairs`);
});

test("questions about attention are answered with the numbers of layer 1", () => {
  const attention = stack.layers[0].self_attention;
  const t = causal ? ids.length - 1 : 0;
  const scores = rowsOf(attention.scores_hts)[t];
  const [weights, sharp] = [softmax(scores), softmax(scores.map((score) => score * Math.sqrt(d)))];
  const top = weights.indexOf(Math.max(...weights));
  answer("divided by √", `“${pieces[t]}” takes ${number(weights[top])} from “${pieces[top]}”. Without the division, it would take ${number(sharp[top])}.`);
  answer("split the vector", form.groups === form.heads ? `Each of the ${form.heads} heads has its own ${d} columns of Wq, Wk and Wv`
    : `Each of the ${form.groups} heads of keys and values has ${d} columns`);
  answer("inputs or outputs", `x·Wq${form.has_biases ? " + bq" : ""}, x·Wk`);
  answer("forgotten permute", `“${pieces[0]}”, then ${d} of “${pieces[1]}”, of the same head`);
  const isWord = (n) => /[\p{L}\p{N}]/u.test(pieces[n]) && !/^<[^ ]*>$/.test(pieces[n]);
  const best = sharpest(attention, (row, s) => row !== s && isWord(row) && isWord(s));
  answer("query, key and value mean", `In head ${best.head + 1} of layer 1, the query of “${pieces[best.t]}” fits the key of “${pieces[best.s]}”`);
  answer("query, key and value mean", `the score ${number(rowsOf(attention.scores_hts, best.head)[best.t][best.s])}. “${pieces[best.t]}” therefore takes ${number(best.weight)}`);
  assert.equal(answers("query, key and value mean").includes("in which the key comes first"), causal);
});

test("questions about layers are answered with the first row", () => {
  const { self_attention, self_attention_residual: residual, feed_forward } = stack.layers[0];
  const at = (tensor) => number(rowsOf(tensor)[0][0], 3);
  answer("residual connection add", `0: ${at(residual.input_tm)} + ${at(self_attention.output_tm)} ≈ ${at(residual.sum_tm)}.`);
  const { embedding } = stack;
  const carried = [["embedding", embedding.scaled_tm ?? embedding.tokens_tm], ["position", embedding.positions_tm], ["segment", embedding.segments_tm]]
    .filter(([, tensor]) => tensor).map(([name, tensor]) => `${name} ${at(tensor)}`).join(" + ");
  answer("first residual connection carry", `0: ${carried} ≈ ${at(embedding.sum_tm)}`);
  const last = stack.last_tm ?? stack.layers.at(-1).feed_forward_residual[form.pre_norm ? "sum_tm" : "normed_tm"];
  const [before, after] = [residual.input_tm, last].map((tensor) => rowsOf(tensor)[0]);
  answer("more abstract", `of “${pieces[0]}” before layer 1 and after the last layer is ${number(dot(before, after) / length(before) / length(after))} `);
  if (form.is_gated) answer("Why a gate", `this gives ${form.inner_width} numbers`);
  else {
    answer("between them?", `${rowsOf(feed_forward.inner_tf)[0].filter((value) => value > 0).length} of ${form.inner_width} are above zero`);
    assert.equal(answers("between them?").includes("sets negative numbers to zero"), form.activation === "relu");
  }
  answer("share weights", `${count(facts.layer_parameters)} parameters`);
  assert.match(answers("share weights"), /The best number is found/);
});

test("questions about the family are answered with its own numbers", () => {
  if (isTranslation) {
    const [row] = rowsOf(trace.decoder.layers[0].cross_attention.weights_hts);
    const top = row.indexOf(Math.max(...row));
    answer("cross-attention come from", `“${trace.target.texts[0]}” takes ${number(row[top])} from “${pieces[top]}”`);
  }
  const read = isTranslation ? trace.target.texts : causal ? pieces.slice(0, trace.given) : null;
  if (read) answer("without the mask", `the row of “${read.at(-2)}” must predict “${read.at(-1)}”`);
  else answer("no mask hide", `“${pieces[trace.places[0]]}” stands at each hidden place. Its row must find “${trace.predictions[0].best.text}”`);
  assert.equal(questions.at(-1)[2], causal ? "decoder.output" : "encoder.embedding");
});

test("the section of questions has all of them, with links to what they are about", () => {
  const section = sections.at(-1);
  assert.deepEqual([...section.querySelectorAll("ol.contents a")].map((link) => [link.textContent, link.getAttribute("href")]),
    questions.map(([asked], n) => [asked, `#${section.id}-question-${n + 1}`]));
  questions.forEach(([asked], n) => assert.equal(section.querySelector(`[id="${section.id}-question-${n + 1}"]`).textContent, asked));
  assert.deepEqual([...section.querySelectorAll('a[href^="#box-"]')].map((link) => link.getAttribute("href").slice(5)), questions.map(([, , box]) => box));
});

const barsIn = (node) => [...node.querySelectorAll("table.bars")].map((table) => [...table.querySelectorAll("tbody tr")].map((row) =>
  [row.firstChild.textContent, row.className === "chosen"]));
const barsOf = (candidates, chosen) => candidates.map(({ id, text }) => [text, id === chosen]);

if (isTranslation) {
  const { decoder, target, chosen, predictions } = trace;
  const targets = target.texts;
  const other = "cross_attention";

  test("the memory has the keys and values of each decoder layer", () => {
    const section = named("Memory");
    isMap(mapsNamed(section, "memory")[0], rowsOf(trace.encoder.output_tm), { rows: pieces });
    const folds = [...section.querySelectorAll("details")];
    assert.equal(folds.length, decoder.layers.length);
    decoder.layers.forEach((layer, n) => heads.forEach((head) => {
      isMap(mapsNamed(folds[n], `head ${head + 1}: keys`)[0], rowsOf(layer[other].keys_hsd, head), { rows: pieces });
      isMap(mapsNamed(folds[n], `head ${head + 1}: values`)[0], rowsOf(layer[other].values_hsd, head), { rows: pieces });
    }));
  });

  test("each step of the decoder shows its row in every layer, and the candidates", () => {
    const steps = sections.filter(({ dataset }) => dataset.group === "Decoding steps");
    assert.equal(steps.length, chosen.ids.length);
    steps.forEach((section, t) => {
      assert.ok(section.textContent.startsWith(`Decoding step ${t + 1}: after “${targets[t]}” comes “${chosen.texts[t]}”`));
      assert.equal(words(section).includes("The translation begins with"), t === 0);
      const tokens = [...section.querySelectorAll(".tokens bdi")].map((one) => [one.textContent, one.className]);
      assert.deepEqual(tokens, [...targets.slice(0, t + 1).map((text, n) => [text, n === t ? "token new" : "token"]), [chosen.texts[t], "token follows"]]);
      const { embedding } = decoder;
      const enters = [embedding.scaled_tm, ...(form.turned ? [] : [embedding.positions_tm, embedding.sum_tm])];
      isMap(mapsNamed(section, `“${targets[t]}” enters`)[0], enters.map((tensor) => rowsOf(tensor)[t]), {
        rows: [`embedding × √${form.width}`, ...(form.turned ? [] : [`position ${t}`, "sum"])] });
      decoder.layers.forEach((layer, n) => {
        const soFar = targets.slice(0, t + 1);
        const headed = heads.map((head) => `head ${head + 1}`);
        for (const [title, kind, columns] of [["masked self-attention", "self_attention", soFar], ["cross-attention", other, pieces]]) {
          const rows = (name) => heads.map((head) => rowsOf(layer[kind][name], head)[t]);
          isMap(mapsNamed(section, title)[n], rows("weights_hts").map((line) => line.slice(0, columns.length)), { rows: headed, columns, isShare: true });
          isMap(mapsNamed(section, `${title}: scores`)[n], rows("scores_hts").map((line) => line.slice(0, columns.length)), { rows: headed, columns });
          isMap(mapsNamed(section, `${title}: query`)[n], rows("queries_htd"), { rows: headed });
          isMap(mapsNamed(section, `${title}: mix`)[n], rows("mix_htd"), { rows: headed });
          assert.equal(mapsNamed(section, `${title}: key`).length, kind === other ? 0 : decoder.layers.length);
          if (kind !== other) isMap(mapsNamed(section, `${title}: value`)[n], rows("values_hsd"), { rows: headed });
        }
        const stages = (output, residual) => (form.pre_norm ? [residual.normed_tm, output, residual.sum_tm] : [output, residual.sum_tm, residual.normed_tm]);
        const way = [layer.self_attention_residual.input_tm, ...["self_attention", other, "feed_forward"].flatMap((name) =>
          stages(layer[name].output_tm, layer[`${name}_residual`]))];
        const [map] = mapsNamed(section, `Decoder layer ${n + 1}, the row of “${targets[t]}”, from top to bottom`);
        isMap(map, way.map((tensor) => rowsOf(tensor)[t]), {});
        assert.match(map.querySelector("small").textContent, new RegExp(`^${way.length} × ${form.width}$`));
        const inner = mapsIn(section).filter((figure) => titleOf(figure).startsWith("feed-forward, "))[n];
        isMap(inner, [rowsOf(layer.feed_forward.inner_tf)[t]], { rows: [targets[t]] });
      });
      assert.equal(words(section).split("How much each head takes").length, 2); // once, in the first layer
      isMap(mapsNamed(section, "leaves the decoder")[0], [rowsOf(decoder.output_tm)[t]], { rows: [targets[t]] });
      assert.deepEqual(barsIn(section), [barsOf(predictions[t].candidates, chosen.ids[t])]);
      const own = predictions[t].candidates.find(({ id }) => id === chosen.ids[t]).probability;
      const isBest = own >= predictions[t].best.probability;
      says(section, `“${chosen.texts[t]}” ${isBest ? `is the most probable piece (${percent(own)})` : `(${percent(own)}) is not the most probable piece`}`);
      assert.equal(words(section).includes("It ends the sentence"), isBest && t + 1 === chosen.ids.length);
    });
  });

  test("a piece that is as probable up to rounding is the most probable one", () => {
    const t = 1;
    const near = (off) => {
      const { best } = predictions[t];
      const changed = predictions.with(t, { candidates: [{ ...best, id: -1 }, { ...best, probability: best.probability - off }], best });
      return words(drawAll({ ...trace, predictions: changed }).filter(({ dataset }) => dataset.group === "Decoding steps")[t]);
    };
    assert.match(near(5e-7), /is the most probable piece/);
    assert.match(near(2e-6), /is not the most probable piece/);
    const { length: total } = chosen.ids;
    const end = predictions.with(total - 1, { candidates: [{ id: chosen.ids.at(-1), text: "x", logit: 0, probability: 1 }],
      best: { probability: 1 } });
    const last = drawAll({ ...trace, predictions: end }).filter(({ dataset }) => dataset.group === "Decoding steps").at(-1);
    says(last, "It ends the sentence.");
  });

  test("all steps in one pass have the maps of each decoder layer, and the sum of the log-probabilities", () => {
    const section = named("All steps in one pass");
    const groups = mapsIn(section);
    decoder.layers.forEach((layer, n) => {
      const part = { querySelectorAll: (kind) => (kind === "details" ? [...section.querySelectorAll("details")].slice(n * form.heads, (n + 1) * form.heads)
        : groups.slice(n * form.heads * 8, (n + 1) * form.heads * 8)) };
      showsHeads(part, layer.self_attention, targets, targets, true);
      const crossed = part.querySelectorAll("figure.map").slice(-form.heads);
      heads.forEach((head) => isMap(crossed[head], rowsOf(layer[other].weights_hts, head), { rows: targets, columns: pieces, isShare: true }));
    });
    const total = sum(chosen.ids.map((id, t) => Math.log(predictions[t].candidates.find((one) => one.id === id).probability)));
    says(section, `${number(total)} nats, which is a probability of ${percent(Math.exp(total))}`);
  });

  test("a page of a deep or long translation draws its first layers and steps", () => {
    const all = drawAll({ ...trace, model: { ...facts, limits: { ...limits, layers: 1, pieces: 2 } } });
    const steps = all.filter(({ dataset }) => dataset.group === "Decoding steps");
    assert.deepEqual(steps.map(({ dataset }) => dataset.name.split(":")[0]), ["1", "2"]);
    assert.equal(mapsNamed(steps[0], "cross-attention").length, 1);
    assert.equal(named("Memory", all).querySelectorAll("details").length, 1);
    assert.equal(mapsIn(named("All steps in one pass", all)).length, form.heads * 8);
    const places = placesOf(sectionsOf[family]({ ...trace, model: { ...facts, limits: { ...limits, layers: 1 } } }).slice(1));
    assert.ok(places.has("decoder.1.feed_forward") && !places.has("decoder.2.feed_forward"));
  });
}

if (causal) {
  const { given, chosen, predictions } = trace;
  const all = [...pieces, chosen.texts.at(-1)];
  const probabilities = ids.map((_, t) => predictions[t].candidates.find(({ id }) => id === [...ids, chosen.ids.at(-1)][t + 1]).probability);

  test("the pieces of the text, and those that the model added, are told apart", () => {
    says(named("Pieces and ids"), `The next ${given - 1} are the given text.`);
    const [overview] = sectionsOf[family](trace);
    const [text, made] = overview.after().flat(Infinity).filter(({ className }) => className === "tokens")
      .map((one) => [...one.querySelectorAll("bdi")].map(({ textContent }) => textContent));
    assert.deepEqual([text, made], [pieces.slice(0, given), chosen.texts]);
  });

  test("the next piece has its candidates", () => {
    const section = named("The next piece");
    says(section, `After “${pieces[given - 1]}” comes “${chosen.texts[0]}”`);
    assert.deepEqual(barsIn(section), [barsOf(predictions[given - 1].candidates, chosen.ids[0])]);
    isMap(mapsNamed(section, "leaves the decoder")[0], rowsOf(trace.states_nm), { rows: [pieces[given - 1]] });
  });

  test("each step has the text so far, and its candidates", () => {
    const section = named("Step by step");
    const folds = [...section.querySelectorAll("details")];
    assert.deepEqual(folds.map((fold) => fold.firstChild.textContent), chosen.texts.map((text, step) => `${step + 1}: “${all[given + step - 1]}” → “${text}”`));
    folds.forEach((fold, step) => assert.deepEqual([...fold.querySelectorAll(".tokens bdi")].map((one) => [one.textContent, one.className]), [
      ...pieces.slice(0, given + step).map((text, n) => [text, n === given + step - 1 ? "token new" : "token"]), [chosen.texts[step], "token follows"]]));
    assert.deepEqual(barsIn(section), chosen.ids.map((id, step) => barsOf(predictions[given - 1 + step].candidates, id)));
  });

  test("every place has the loss of the piece that came", () => {
    const section = named("Every place");
    const rows = [...section.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
    assert.deepEqual(rows, pieces.map((text, t) => {
      const [best] = predictions[t].candidates;
      return [text, `${best.text} (${percent(best.probability)})`, all[t + 1], percent(probabilities[t]), number(-Math.log(probabilities[t]))];
    }));
    const own = probabilities.slice(0, given - 1).map((one) => -Math.log(one));
    says(section, `Over the ${own.length} pieces of the given text, the mean is ${number(sum(own) / own.length)} nats.`);
  });

  test("a drawn step says the number that was drawn, and the pieces from which", () => {
    const kept = Array.from({ length: 12 }, (_, n) => ({ id: n, text: `p${n}`, probability: 0.05, sum: 0.05 * (n + 1) }));
    const draws = chosen.ids.map((_, step) => ({ id: step ? 2 : 10, uniform: 0.25, kept }));
    const drawn = drawAll({ ...trace, draws });
    const tableOf = (node) => [...node.querySelectorAll("table:not(.bars) tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
    const section = named("The next piece", drawn);
    says(section, `[0, 1) is ${number(0.25, 4)}. Times the sum of 12 kept pieces, 0.6000, it is 0.1500`);
    const listed = [...kept.slice(0, limits.candidates), kept[10]];
    assert.deepEqual(tableOf(section), listed.map((one) => [one.text, "5.00%", number(one.sum, 4)]));
    assert.equal([...section.querySelectorAll("table:not(.bars) tbody tr")].findIndex((row) => row.className === "marked"), limits.candidates);
    const [, second] = named("Step by step", drawn).querySelectorAll("details");
    assert.equal([...second.querySelectorAll("table:not(.bars) tbody tr")].findIndex((row) => row.className === "marked"), 2);
    assert.equal(tableOf(second).length, limits.candidates);
  });
}

if (family === "filling") {
  test("each hidden piece has its neighbours, its candidates, and the numbers of the head", () => {
    const section = named("What is hidden");
    trace.places.forEach((place, n) => {
      says(section, `[MASK] ${n + 1}, between “${pieces[place - 1]}” and “${pieces[place + 1]}”`);
      says(section, `The most probable piece is “${trace.predictions[n].best.text}”, with ${percent(trace.predictions[n].best.probability)}`);
    });
    assert.deepEqual(barsIn(section), trace.predictions.map(({ candidates, best }) => barsOf(candidates, best.id)));
    const rows = trace.places.map((_, n) => `[MASK] ${n + 1}`);
    isMap(mapsNamed(section, "leaves the encoder")[0], rowsOf(trace.states_nm), { rows });
    isMap(mapsNamed(named("Hidden states"), "hidden states")[0], rowsOf(trace.stack.output_tm), { rows: pieces });
  });
}
