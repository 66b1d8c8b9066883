// Tests for the page of any family: its numbers are those of the Python model, and each has an origin.

import assert from "node:assert/strict";
import { test } from "node:test";

import { atOnce, close, explained } from "./opened_page.mjs";

// The formula of a norm.
const NORM = new RegExp(String.raw`^(\(x − mean\)|x) \/ √\((variance|mean of x²) \+ ε\) · `
  + String.raw`g( \+ b)?, with (mean (\S+), )?.* (\S+), g (\S+)$`);

// The names of the page for Python's: without the batch; a masked model's rows are those of its pieces.
const nameInPage = (name) => name.replace(/^ids_bt$/, "ids").replace(/_b(?=\w+$)/, "_")
  .replace(/^(logits|probabilities)_nv$/, "$1_tv");

function same(name, live, expected) {
  if (expected === null) assert.equal(live, null, name);
  else if (live?.data) {
    const numbers = expected.flat(Infinity);
    const largest = Math.max(...numbers.map(Math.abs));
    assert.equal(live.data.length, numbers.length, name);
    assert.equal(live.shape.reduce((a, b) => a * b), numbers.length, name);
    numbers.forEach((number, n) => number === null ? assert.equal(live.data[n], -Infinity, name)
      : assert.ok(Math.abs(live.data[n] - number) <= 3e-4 * largest,
        `${name}[${n}]: ${live.data[n]} is not ${number}`));
  } else if (name.endsWith(".ids") || name.endsWith("places")) assert.deepEqual(live, expected.flat(), name);
  else if (Array.isArray(expected)) {
    assert.equal(live.length, expected.length, name);
    expected.forEach((one, n) => same(`${name}.${n}`, live[n], one));
  } else {
    for (const [key, one] of Object.entries(expected)) same(`${name}.${nameInPage(key)}`, live[nameInPage(key)], one);
  }
}

// `result` is what the page computes of its text.
export function testNumbers(page, result, switchesOfTest = null) {
  const { of, model } = page;
  const { numberAt, keysOf, tensorAt, hasHeads, allPlaces, nameOf, fullNameOf, labelsOf, cellOf } = of("places");
  const { originOf } = of("origins");
  const { traced } = result;
  const { stack } = model.config;

  test("all numbers of the page are those of the model", () => {
    const { trace } = explained;
    const expected = stack ? { ...trace, [stack]: trace.stack } : trace;
    delete expected.stack;
    same("trace", traced, expected);
    assert.deepEqual(result.ids, (explained.pieces ?? explained.source).ids);
    if (explained.chosen) assert.deepEqual(result.chosen, explained.chosen.ids);
    assert.equal(result.made ?? result.translation,
      explained.continuation ?? explained.filled ?? explained.translation);
  });

  test("every tensor that does not repeat another has a place, in the order of computation", () => {
    const places = [];
    const walk = (value, path) => {
      if (value === null || /(^|\.)(ids|places|input_tm|positions|segments)$|_residual\.output_tm$/.test(path)) return;
      if (Array.isArray(value) && typeof value[0] !== "object") return;
      if (value.data || (Array.isArray(value) && Array.isArray(value[0]))) places.push(path);
      else for (const [name, one] of Object.entries(value)) walk(one, path ? `${path}.${name}` : name);
    };
    walk(traced, "");
    const isRepeated = (key) => model.config.positions === "rotary" && key.endsWith("positions_tm");
    assert.deepEqual(new Set(keysOf(model, traced)), new Set(places.filter((key) => !isRepeated(key))));
    assert.deepEqual(keysOf(model, traced).slice(-2), ["logits_tv", "probabilities_tv"]);
    const keys = allPlaces(model).map(({ key }) => key);
    assert.equal(new Set(keys).size, keys.length);
    const order = (...names) => {
      const found = names.map((name) => keys.findIndex((key) => key.endsWith(name)));
      assert.deepEqual(found, found.toSorted((a, b) => a - b), names.join());
      assert.ok(found[0] >= 0, names[0]);
    };
    const first = stack ?? "encoder";
    order(`${first}.embedding.sum_tm`, "layers.0.self_attention.queries_htd", "0.self_attention.keys_hsd",
      "0.self_attention.values_hsd", "0.self_attention.scores_hts", "0.self_attention.weights_hts",
      "0.self_attention.mix_htd", "0.self_attention.output_tm", "0.self_attention_residual.sum_tm",
      "0.feed_forward.inner_tf", "0.feed_forward.output_tm", "0.feed_forward_residual.sum_tm",
      "layers.1.self_attention.queries_htd", `${first}.output_tm`);
    const normed = keys.indexOf(`${first}.layers.0.feed_forward_residual.normed_tm`);
    assert.equal(normed < keys.indexOf(`${first}.layers.0.feed_forward.inner_tf`), model.config.norm === "pre");
    if (!stack) order("encoder.output_tm", "decoder.embedding.sum_tm", "decoder.layers.0.cross_attention.mix_htd",
      "decoder.layers.0.feed_forward.inner_tf", "decoder.output_tm");
    const groups = new Set(allPlaces(model).map(({ group }) => group));
    const title = (name) => name[0].toUpperCase() + name.slice(1);
    assert.deepEqual([...groups], (stack ? [stack] : ["encoder", "decoder"]).flatMap((name) => [
      `${title(name)}: input`, `${title(name)} layer 1`, `${title(name)} layer 2`,
      !stack && name === "encoder" ? "Memory" : `${title(name)}: output`,
      ...(stack === "encoder" ? ["Head"] : [])]));
  });

  test("each tensor has a name that says what it is, and in which layer", () => {
    const names = keysOf(model, traced).map((key) => [key, fullNameOf(key), nameOf(key)]);
    assert.equal(new Set(names.map(([, full]) => full)).size, names.length);
    for (const [key, full, name] of names) {
      assert.ok(full.endsWith(name) && !full.includes("undefined"), full);
      const [side, layers, n, part] = key.split(".");
      if (layers !== "layers") continue;
      assert.match(full, new RegExp(`^${side[0].toUpperCase()}${side.slice(1)} layer ${Number(n) + 1}, `));
      assert.match(name, new RegExp(`^${{ s: "self-attention", c: "cross-attention", f: "feed-forward" }[part[0]]}: `));
    }
    const names2 = (key) => [fullNameOf(key), nameOf(key)];
    assert.deepEqual(names2("encoder.output_tm"), ["output of the encoder", "output of the encoder"]);
    assert.deepEqual(names2("decoder.embedding.positions_tm"), ["decoder, positions", "positions"]);
    assert.equal(nameOf("decoder.layers.0.self_attention_residual.sum_tm"), "self-attention: input + output");
    assert.match(nameOf("decoder.layers.0.feed_forward_residual.output_tm"), /result of the sub-layer$/);
    assert.equal(nameOf("logits_tv"), "logits");
    assert.equal(nameOf("probabilities_tv"), "probabilities");
    assert.equal(of("places").nameOfAttention("decoder.layers.1.self_attention"), "Decoder layer 2, self-attention");
  });

  test("rows and columns are labelled by their pieces; equal ones by their places, too", () => {
    for (const key of keysOf(model, traced)) {
      const { rows, columns, columnsArePieces } = labelsOf(key, traced, result.pieces);
      const { shape } = tensorAt(traced, key);
      assert.deepEqual([rows.length, columns.length], shape.slice(-2), key);
      const readsMemory = /cross_attention.(keys|values)/.test(key);
      const texts = key.startsWith("encoder.") || readsMemory ? result.pieces.source
        : (!key.includes(".") && result.pieces.hidden) || result.pieces.target;
      rows.forEach((row, n) => assert.equal(row,
        texts.filter((one) => one === texts[n]).length > 1 ? `${texts[n]} (${n})` : texts[n]));
      assert.equal(columnsArePieces, /_(hts|tv)$/.test(key), key);
      if (key.endsWith("tv")) assert.equal(columns, result.pieces.vocabulary);
      else if (!key.endsWith("hts")) assert.deepEqual(columns.slice(0, 3), ["0", "1", "2"]);
      else assert.equal(columns.length, key.includes("cross") ? result.pieces.source.length : rows.length);
    }
  });

  const cellsOf = (used, stride) => keysOf(model, used.traced).flatMap((key) => {
    const { shape, data } = tensorAt(used.traced, key);
    const [rows, columns] = shape.slice(-2);
    return Array.from(data, (_, n) => ({ key, head: hasHeads(key) ? Math.floor(n / columns / rows) : null,
      row: Math.floor(n / columns) % rows, column: n % columns }));
  }).filter((_, n) => n % stride === 0);

  test("a number is found by its row of the tensor, and only there", () => {
    for (const cell of cellsOf(result, 97)) {
      const { shape, data } = tensorAt(traced, cell.key);
      const place = ((cell.head ?? 0) * shape.at(-2) + cell.row) * shape.at(-1);
      const line = data.subarray(place, place + shape.at(-1));
      const found = cellOf(model, traced, line, cell.column);
      assert.equal(numberAt(traced, found), line[cell.column]);
      assert.deepEqual([found.row, found.column, found.head], [cell.row, cell.column, cell.head]);
      assert.equal(tensorAt(traced, found.key).data.buffer, data.buffer);
      assert.equal(cellOf(model, traced, line.slice(), cell.column), null);
    }
    const { data } = tensorAt(traced, "logits_tv"); // a view of what is before or behind a tensor is no cell of it
    const copy = new Float32Array(data.length + 4);
    const shifted = { ...traced, logits_tv: { ...traced.logits_tv, data: copy.subarray(2, data.length + 2) } };
    assert.equal(cellOf(model, shifted, copy, 1), null);
    assert.equal(cellOf(model, shifted, copy, 2).column, 0);
    assert.equal(cellOf(model, shifted, copy, data.length + 1).row, traced.logits_tv.shape[0] - 1);
    assert.equal(cellOf(model, shifted, copy, data.length + 2), null);
  });

  // The number of a cell by the terms of its origin.
  function assertOrigin({ traced: used, switches }, cell) {
    const number = numberAt(used, cell);
    const name = JSON.stringify(cell);
    const { value, terms, added, divisor, formula, note, product } = originOf(model, used, cell, switches);
    assert.ok(value === number || Math.abs(value - number) <= 1e-5 * Math.abs(number) + 1e-9,
      `${name}: ${value}, ${number}`);
    terms.forEach(({ place, a, b, factor, value: one, isAsked }) => {
      if (place) assert.equal(numberAt(used, place), a, name);
      if (factor) assert.equal(numberAt(used, factor), b, name);
      if (isAsked === undefined && b !== null) close(one, a * b, name);
    });
    if (/^Σ [^;]* · /.test(formula)) { // a sum of products, the bias, and perhaps a division
      const whole = terms.reduce((sum, one) => sum + one.value, added ?? 0) / Math.sqrt(divisor ?? 1);
      if (!note.startsWith("Rotated")) close(whole, number, `${name} ${formula}`, 2e-5 * Math.max(1, Math.abs(whole)));
      assert.equal(formula.includes("+ b"), added !== undefined && added !== null, formula);
    }
    assertFormula({ used, switches, cell, number, value, terms, added, formula, note, name });
    if (product.length) assertProduct(cell, tensorAt(used, cell.key).shape.slice(-2), product, terms, number);
    return { formula, note, product };
  }

  // The numbers in a formula and its note yield the number.
  function assertFormula({ cell, used, number, terms, added, formula, note, name }) {
    const read = (text) => Number(text.replaceAll("−", "-"));
    const near = (text, expected) => close(read(text), expected, `${name} ${formula} ${note}`, 1e-3);
    let found;
    if ((found = /^([EPS])\[(\d+), (\d+)\]( · √(\d+))?/.exec(formula))) {
      const [, letter, n, column, , width] = found;
      assert.equal(Number(column), cell.column, name);
      assert.ok(note.includes(`Row ${n} `), note);
      const path = cell.key.split(".")[0];
      const { ids, positions, segments } = used[path] ?? used[stack];
      const row = cell.row < (ids.length) ? cell.row : 0;
      if (path !== "states_nm") {
        assert.equal(Number(n), { E: ids, P: positions, S: segments }[letter][row], name);
      }
      if (width) assert.equal(Number(width), model.config.width);
      assert.equal(terms.length, 1);
      close(terms[0].a * (width ? Math.sqrt(width) : 1), number, name);
      if (letter === "E") {
        const matrix = model.weights[path === "encoder" && model.weights["source_embedding.weight"]
          ? "source_embedding.weight" : "target_embedding.weight"];
        assert.equal(terms[0].a, matrix.data[n * model.config.width + cell.column]);
      }
    } else if ((found = /^(sin|cos)\((\d+) \/ 10000\^\((\d+)\/(\d+)\)\) = (sin|cos)\(([\d.e-]+)\)/.exec(formula))) {
      const [, wave, place, power, width, again, angle] = found;
      assert.deepEqual([wave, Number(place)], [again, cell.row]);
      close(read(angle), place / 10000 ** (power / width), name);
      close(Math[wave](read(angle)), number, name);
      assert.equal(wave, cell.column % 2 ? "cos" : "sin");
    } else if ((found = NORM.exec(formula))) {
      const [, , kind, b, hasMean, mean, root, gain] = found;
      const { place, a } = terms[0];
      const { shape, data } = tensorAt(used, place.key);
      const row = Array.from(data.subarray(place.row * shape.at(-1), (place.row + 1) * shape.at(-1)));
      const average = (some) => some.reduce((sum, one) => sum + one, 0) / some.length;
      const centre = kind === "variance" ? average(row) : 0;
      const deviation = Math.sqrt(average(row.map((one) => (one - centre) ** 2)) + model.config.norm_epsilon);
      assert.equal(Boolean(hasMean), kind === "variance", formula);
      assert.equal(kind === "variance", model.config.norm_kind !== "rms", formula);
      if (hasMean) near(mean, centre);
      near(root, deviation);
      close(((a - centre) / deviation) * read(gain) + (added ?? 0), number, name, 1e-3 * Math.max(1, Math.abs(number)));
      assert.equal(Boolean(b), added !== null && added !== undefined, formula);
      assert.equal(note.includes("b are"), Boolean(b), note);
    } else if ((found = /^silu\(z\) · \(Σ xᵢ · Vᵢ( \+ b)?\), with z (\S+), silu\(z\) (\S+) /.exec(formula))) {
      const z = read(found[2]);
      near(found[3], z / (1 + Math.exp(-z)));
      const inner = terms.reduce((sum, one) => sum + one.value, added ?? 0);
      close(read(found[3]) * inner, number, `${name} ${formula}`, 1e-2 * Math.max(1, Math.abs(inner)));
      assert.equal(Boolean(found[1]), added !== null && added !== undefined);
    }
    if ((found = /^Rotated by position (\d+): column (\d+) times (\S+) (less|plus) column (\d+) times (\S+)\.$/.exec(
      note))) {
      const d = model.config.width / model.config.heads;
      const [, position, column, cosine, sign, other, sine] = found;
      assert.deepEqual([position, column, other], [cell.row, cell.column, (cell.column + d / 2) % d].map(String));
      const angle = cell.row * model.weights["positions.angles"].data[cell.column % (d / 2)];
      near(cosine, Math.cos(angle));
      near(sine, Math.sin(angle));
      assert.equal(sign, cell.column < d / 2 ? "less" : "plus");
      const whole = terms.reduce((sum, one) => sum + one.value, added ?? 0);
      close(whole, number, name, 1e-4 * Math.max(1, Math.abs(number)));
    }
  }

  // The shapes of a product's matrices match, and the row and the column that went in are marked.
  function assertProduct(cell, shape, product, terms, number) {
    const name = `${JSON.stringify(cell)}: ${JSON.stringify(product)}`;
    const sign = product.indexOf("·");
    const [left, right] = [product[sign - 1], product[sign + 1]];
    const made = product[product.findIndex((one) => typeof one === "string" && one.endsWith("=")) + 1];
    assert.deepEqual([made.rows, made.columns, made.row, made.column], [...shape, cell.row, cell.column], name);
    assert.deepEqual([left.rows, left.columns, right.columns], [made.rows, right.rows, made.columns], name);
    assert.deepEqual([left.row, left.column, right.row, right.column], [cell.row, null, null, cell.column], name);
    if (number !== -Infinity) assert.equal(left.columns, terms.length, name);
    product.forEach((one, n) => {
      if (typeof one === "string" && one.startsWith("transposed")) {
        const turned = product[n - 1];
        assert.deepEqual([turned.columns, turned.rows, turned.row], [right.rows, right.columns, cell.column], name);
      }
      if (one.name === "b") assert.deepEqual([one.rows, one.columns, one.column], [1, made.columns, cell.column], name);
    });
    const { heads, groups } = model.config;
    const ofHead = /_residual|feed_forward|logits|inner/.test(cell.key) || cell.head === null ? null : cell.head;
    if (ofHead === null) return;
    if (/(keys|values)_/.test(cell.key) && groups < heads) {
      assert.ok(right.name.endsWith(`of group ${Math.floor(cell.head / (heads / groups)) + 1}`), name);
    } else if (!cell.key.endsWith("weights_hts")) {
      const named = cell.key.endsWith("scores_hts") ? product[0] : cell.key.endsWith("mix_htd") ? left : right;
      assert.ok(named.name.endsWith(`of head ${cell.head + 1}`), name);
    }
  }

  test("the terms of a number's origin yield it, and are numbers of the page", () => {
    const seen = cellsOf(result, 29).map((cell) => ({ ...assertOrigin(result, cell), cell }));
    assert.ok(seen.length > 400);
    const masked = seen.filter(({ formula }) => formula.startsWith("−∞"));
    assert.ok(masked.every(({ cell }) => /scores_hts$/.test(cell.key) && cell.column > cell.row));
    assert.equal(masked.length > 0, stack !== "encoder");
  });

  if (switchesOfTest) {
    const changed = atOnce(of("computing").computeSentenceSlices(model, result.sentence, null, switchesOfTest, result));
    test("with switches, too", () => {
      const used = { ...changed, switches: switchesOfTest };
      const formulas = cellsOf(used, 17).map((cell) => [cell, assertOrigin(used, cell)]);
      const of = (key, head = null) => formulas.filter(([cell]) => cell.key.includes(key) && (head === null
        || cell.head === head));
      assert.ok(formulas.every(([, { formula }]) => !formula.startsWith("−∞"))); // without the mask
      const off = of("decoder.layers.1.cross_attention.mix", 1);
      assert.ok(off.length && off.every(([, { formula, product }]) => formula.startsWith("0:") && !product.length));
      assert.ok(of("decoder.layers.1.cross_attention.mix", 2).every(([, { formula }]) => !formula.startsWith("0:")));
      const sums = of("encoder.layers.0.feed_forward_residual.sum");
      assert.ok(sums.length && sums.every(([, { formula }]) => formula.startsWith("output only")));
      assert.ok(of("encoder.layers.1.feed_forward_residual.sum").every(([, { formula }]) =>
        formula === "input + output"));
      const scores = of("scores_hts");
      assert.ok(scores.every(([, { product, formula }]) => product.includes("=")
        && formula.endsWith("not divided by √d")));
    });
    test("switches change their part and nothing before", () => {
      const firstDifference = (path) => {
        const { data } = tensorAt(traced, path);
        return tensorAt(changed.traced, path).data.some((number, n) => number !== data[n]);
      };
      assert.ok(!firstDifference("encoder.embedding.scaled_tm"));
      assert.equal(firstDifference("encoder.embedding.sum_tm"), model.config.positions !== "rotary");
      assert.ok(firstDifference("encoder.layers.0.self_attention.scores_hts"));
      assert.deepEqual(changed.chosen, result.chosen); // both read the same pieces
      const { mix_htd: { shape, data } } = changed.traced.decoder.layers[1].cross_attention;
      const ofHead = (h) => data.subarray(h * shape[1] * shape[2], (h + 1) * shape[1] * shape[2]);
      assert.deepEqual([0, 1, 2, 3].map((h) => ofHead(h).some(Boolean)), [true, false, true, true]);
      const { sum_tm } = changed.traced.encoder.layers[0].feed_forward_residual;
      assert.deepEqual(sum_tm.data, changed.traced.encoder.layers[0].feed_forward.output_tm.data);
      assert.ok(changed.traced.decoder.layers[0].self_attention.scores_hts.data.every(Number.isFinite));
      const [d, scores] = [model.config.width / model.config.heads, changed.traced.encoder.layers[0].self_attention];
      const products = Array.from({ length: d }, (_, i) => scores.queries_htd.data[i] * scores.keys_hsd.data[i]);
      close(scores.scores_hts.data[0], products.reduce((a, b) => a + b), "not divided", 1e-4);
    });
  }
}
