// Tests for what a translation's page shows of the training on its sentence.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, textOf, until } from "../../../../support/page_in_node.mjs";
import { atOnce, close, isWritten, logSoftmax, numberIn, percent, rowOf, rowsIn, sumOf,
  titlesOf } from "./opened_page.mjs";

// `own` is what the page computes of its sentence.
export function testTraining(page, own) {
  const { model, packed, part, type, settled, of } = page;
  const { bos_id, eos_id } = model.vocabulary;
  const { label_smoothing: smoothing, dropout, attention_dropout: ofWeights, pairs } = packed.training;
  const hasDropout = dropout > 0 || ofWeights > 0;
  const piece = (id) => of("places") && model.target.pieces[id];
  const table = (name) => part(name).querySelector("table");
  const SENTENCE = model.sentence;
  const encoded = (text) => [...model.target.encode(text).map(({ id }) => id), eos_id];
  const logsOf = (ids, target) => {
    const { logits_tv } = atOnce(of("forward").traceSlices(model, ids, [bos_id, ...target.slice(0, -1)]));
    return target.map((_, t) => logSoftmax(rowOf(logits_tv, t)));
  };
  const mean = (numbers) => sumOf(numbers) / numbers.length;
  const lossOf = (logs, id) => (1 - smoothing) * -logs[id] + smoothing * -mean(logs);

  // The losses are those of the pieces of a reference after the source `ids`.
  function assertLosses(ids, reference) {
    const target = encoded(reference);
    const logs = logsOf(ids, target);
    const rows = rowsIn(table("losses"));
    assert.equal(rows.length, target.length + 2);
    assert.equal(titlesOf(table("losses")).length, hasDropout ? 8 : 7);
    assert.ok(titlesOf(table("losses"))[6].endsWith(`ε = ${smoothing}`));
    const nll = target.map((id, t) => -logs[t][id]);
    const smoothed = target.map((id, t) => lossOf(logs[t], id));
    target.forEach((id, t) => {
      const [row, input, right, share, best, one, other] = rows[t];
      assert.deepEqual([row, input, right], [String(t + 1), piece(t ? target[t - 1] : bos_id), piece(id)]);
      assert.equal(share.replace(/[\d.]+%/, "%"), percent(Math.exp(-nll[t])).replace(/[\d.]+%/, "%"));
      close(numberIn(share.replace(/[<>] /, "")), numberIn(percent(Math.exp(-nll[t])).replace(/[<>] /, "")), "share",
        0.02);
      const most = logs[t].indexOf(Math.max(...logs[t]));
      assert.equal(best, most === id ? "the same" : piece(most));
      close(numberIn(one), nll[t], "nll", 1e-4);
      close(numberIn(other), smoothed[t], "smoothed", 1e-4);
      assert.match(one, /^−?\d+\.\d{4}$/);
    });
    const [sum, average] = rows.slice(-2);
    assert.deepEqual([sum[0], average[0]], ["sum", "mean"]);
    [nll, smoothed].forEach((numbers, n) => {
      close(numberIn(sum[5 + n]), sumOf(numbers), "sum", 1e-4);
      close(numberIn(average[5 + n]), mean(numbers), "mean", 1e-4);
    });
    if (hasDropout) {
      const with_ = rows.slice(0, -2).map((row) => numberIn(row[7]));
      close(numberIn(sum[7]), sumOf(with_), "sum with dropout", 1e-3);
      close(numberIn(average[7]), mean(with_), "mean with dropout", 1e-3);
      assert.ok(with_.some((one, t) => Math.abs(one - smoothed[t]) > 1e-3));
      const said = textOf(part("dropout-effect"));
      const [, without, withIt] = /piece is (\S+) without this dropout, and (\S+) with it/.exec(said);
      close(numberIn(without), mean(smoothed), said, 1e-4);
      close(numberIn(withIt), mean(with_), said, 1e-3);
    }
    assert.deepEqual([...table("losses").querySelectorAll("tr.sum")].length, 2);
    const perplexity = textOf(part("training-said")).split(": ")[1];
    close(numberIn(perplexity), Math.exp(mean(nll)), "perplexity", 1e-3);
    assert.deepEqual([...part("row").options].map(textOf), target.map((id, t) => `${t + 1}: ${piece(id)}`));
    return { target, logs };
  }

  // The table of one row: the right piece, the five most probable others, all that are left, and the sum.
  function assertTarget(logs, right) {
    const rows = rowsIn(table("target"));
    const size = logs.length;
    const q = (id) => smoothing / size + (id === right ? 1 - smoothing : 0);
    const others = logs.map((log, id) => ({ log, id })).filter(({ id }) => id !== right).sort((a, b) => b.log - a.log);
    const groups = [[right], ...others.slice(0, 5).map(({ id }) => [id]), others.slice(5).map(({ id }) => id),
      logs.map((_, id) => id)];
    assert.equal(rows.length, 8);
    assert.deepEqual(rows.map(([label]) => label), [piece(right), ...others.slice(0, 5).map(({ id }) => piece(id)),
      `the other ${(size - 6).toLocaleString("en")} pieces`, "sum"]);
    rows.forEach(([, wanted, said, gradient, loss], n) => {
      const [w, p] = [sumOf(groups[n].map(q)), sumOf(groups[n].map((id) => Math.exp(logs[id])))];
      isWritten(wanted, n === 7 ? 1 : w);
      close(numberIn(said), p, "p", 2e-4);
      if (n < 7) {
        close(numberIn(gradient), p - w, "p − q", 2e-4);
        assert.equal(gradient[0], p < w ? "−" : "+");
      } else assert.equal(gradient, "");
      close(numberIn(loss), sumOf(groups[n].map((id) => -q(id) * logs[id])), "loss", 2e-4);
    });
    const bold = [...table("target").querySelectorAll("tbody tr")].map((row) => row.classList.contains("sum"));
    assert.deepEqual(bold, [true, ...Array(6).fill(false), true]);
  }

  test("the settings are those of the run", () => {
    assert.deepEqual(["smoothing", "vocabulary", "r-drop-factor"].map((name) => textOf(part(name))),
      [String(smoothing), model.target.pieces.length.toLocaleString("en"), String(packed.training.r_drop)]);
    assert.equal(part("other-loss").hidden, packed.training.loss === "cross_entropy");
    if (packed.training.loss !== "cross_entropy") assert.equal(textOf(part("loss-name")), "my\\u202eloss");
    assert.equal(part("r-drop").hidden, packed.training.r_drop === 0);
    assert.equal(part("pairs-label").hidden, pairs.length === 0);
    assert.deepEqual([...part("pairs").options].map(textOf), ["choose …", ...pairs.map(([source]) => source)]);
    assert.deepEqual([part("no-dropout").hidden, part("dropout").hidden], [hasDropout, !hasDropout]);
    if (!hasDropout) return;
    assert.deepEqual(["dropout-share", "attention-dropout", "dropout-factor"].map((name) => textOf(part(name))),
      [dropout, ofWeights].map((share) => `${(100 * share).toFixed(2)}%`).concat((1 / (1 - dropout)).toFixed(3)));
  });

  test("the reference is the model's own translation until another is typed", async () => {
    assert.equal(part("reference").value, own.translation);
    const { target, logs } = assertLosses(own.ids, own.translation);
    assertTarget(logs[0], target[0]);
    fill(part("reference"), "she will be a student");
    for (const name of ["losses", "target", "dropout"]) assert.ok(part(name).classList.contains("stale"), name);
    await settled();
    const other = assertLosses(own.ids, "she will be a student");
    assertTarget(other.logs[0], other.target[0]);
    await type("je suis"); // what was typed stays
    assert.equal(part("reference").value, "she will be a student");
    await type(SENTENCE);
    click(part("own"));
    await settled();
    assert.equal(part("reference").value, own.translation);
    assertLosses(own.ids, own.translation);
  });

  test("any row can be chosen; a shorter reference has its last one", async () => {
    fill(part("reference"), "she will be a student");
    await settled();
    const { target, logs } = assertLosses(own.ids, "she will be a student");
    for (const t of [1, target.length - 1]) {
      fill(part("row"), String(t));
      assertTarget(logs[t], target[t]);
    }
    fill(part("reference"), "she");
    await settled();
    const short = assertLosses(own.ids, "she");
    assert.equal(part("row").value, String(short.target.length - 1));
    assertTarget(short.logs.at(-1), eos_id);
    click(part("own"));
    await settled();
  });

  test("a reference of too many pieces is refused, and the results before it are dimmed", async () => {
    const count = (text) => encoded(text).length;
    let text = "漢";
    while (count(text) < 128) text += " 漢";
    text = text.slice(0, -2 * (count(text) - 128) || undefined);
    const most = [text, `${text} 漢`, `${text} 漢 漢`];
    const tooLong = most.find((one) => count(one) > 128);
    fill(part("reference"), tooLong);
    await until(() => textOf(part("training-said")).includes("shorten the reference"));
    assert.ok(textOf(part("training-said")).startsWith(`These are ${count(tooLong)} pieces, but the page takes 128`));
    for (const name of ["losses", "target", "dropout"]) assert.ok(part(name).classList.contains("stale"), name);
    assert.equal(part("losses").hasAttribute("aria-busy"), false);
    click(part("own"));
    await settled();
    assert.ok(!part("losses").classList.contains("stale"));
    assert.ok(textOf(part("training-said")).startsWith("Perplexity"));
  });

  if (pairs.length) test("a pair of the validation fills in both sides", async () => {
    fill(part("pairs"), "1");
    await settled();
    assert.equal(page.box.value, pairs[1][0]);
    assert.equal(part("reference").value, pairs[1][1]);
    fill(part("pairs"), "0");
    await settled();
    const ids = [...model.source.encode(pairs[0][0]).map(({ id }) => id), eos_id];
    assertLosses(ids, pairs[0][1]);
    fill(part("pairs"), "");
    await new Promise((done) => setTimeout(done, 200));
    assert.equal(page.box.value, pairs[0][0]);
    click(part("own"));
    await settled();
    await type(SENTENCE);
  });

  test("dropout of one kind is shown, too", () => {
    for (const rates of [{ dropout: 0, attention_dropout: 0.25 }, { dropout: 0.5, attention_dropout: 0 }]) {
      const parts = new Map();
      const fake = (name) => parts.get(name) ?? parts.set(name, page.document.createElement("p")).get(name);
      of("dropout_panel").dropoutPanel(fake, model, rates, null, null);
      assert.deepEqual([fake("no-dropout").hidden, fake("dropout").hidden], [true, false]);
      assert.equal(textOf(fake("dropout-factor")), rates.dropout ? "2.000" : "1.000");
      assert.equal(textOf(fake("attention-dropout")), rates.dropout ? "0.00%" : "25.00%");
    }
  });

  if (!hasDropout) return;

  const maps = () => [...part("masked").children];
  const EFFECT = /sets ([\d,]+) of ([\d,]+) numbers to zero \((\S+)%\), at (\d+) places/;
  const effectNumbers = () => EFFECT.exec(textOf(part("dropout-effect"))).slice(1)
    .map((text) => Number(text.replaceAll(",", "")));

  test("a mask sets the run's share of numbers to zero, and scales the others", async () => {
    const places = [...part("dropout-place").options];
    const layers = 2;
    assert.equal(places.length, (1 + layers * (2 + 1)) + (1 + layers * (3 + 2))); // of encoder and decoder
    const [zeros, all, share, count] = effectNumbers();
    assert.equal(count, places.length);
    close(share, 100 * zeros / all, "share", 0.006);
    assert.ok(share > 100 * ofWeights - 1 && share < 100 * dropout + 1);
    let [seenZeros, seenAll] = [0, 0];
    for (const place of places) {
      fill(part("dropout-place"), place.value);
      const [first, second] = maps();
      const isOfWeights = place.value.endsWith(".weights");
      assert.equal(textOf(place).endsWith(" of the first head"), isOfWeights);
      const rate = isOfWeights ? ofWeights : dropout;
      const before = first.map.values.flat();
      const after = second.map.values.flat();
      const dropped = after.map((one) => one === null);
      after.forEach((one, n) => one === null || close(one, before[n] / (1 - rate), place.value, 1e-4));
      assert.ok(textOf(second).includes(`× ${(1 / (1 - rate)).toFixed(3)}`));
      assert.equal(first.greatest, second.greatest);
      close(first.greatest, Math.max(...before.map(Math.abs), ...after.filter(Boolean).map(Math.abs)), place.value);
      assert.deepEqual([first, second].map((one) => one.dataset.colours), Array(2).fill(isOfWeights ? "share"
        : "signed"));
      if (isOfWeights) {
        const { rows, columns } = first.map;
        assert.equal(rows.length, place.value.startsWith("encoder") ? own.ids.length
          : encoded(part("reference").value).length);
        assert.ok(columns.length === before.length / rows.length);
      } else {
        assert.equal(first.map.values[0].length, 16);
        assert.match(textOf(first.querySelector("small")), /^\d+ × 32 · the first 16 of 32 numbers$/);
        seenZeros += sumOf(dropped.map(Number));
        seenAll += dropped.length;
      }
      assert.ok(first.layout ?? true);
    }
    const spread = Math.sqrt(dropout * (1 - dropout) / seenAll);
    assert.ok(Math.abs(seenZeros / seenAll - dropout) < 5 * spread, `${seenZeros} of ${seenAll}`);
    await until(() => maps().every(({ layout }) => layout));
  });

  test("the names of masks are those of their tensors", () => {
    const named = (place) => textOf(part("dropout-place").querySelector(`[value="${place}"]`));
    assert.equal(named("encoder.embedding"), "encoder, sum of the inputs");
    assert.equal(named("decoder.1.feed_forward"), "Decoder layer 2, feed-forward: output");
    assert.equal(named("decoder.0.cross_attention.weights"),
      "Decoder layer 1, cross-attention: weights of the first head");
    fill(part("dropout-place"), "decoder.0.cross_attention.weights");
    assert.deepEqual(maps()[0].map.rows.length, encoded(part("reference").value).length);
    assert.deepEqual(maps()[0].map.columns, own.pieces.source);
  });

  test("another draw has another seed, and the same seed the same mask", async () => {
    const drawn = () => JSON.stringify(maps()[1].map.values);
    const [first, place] = [drawn(), part("dropout-place").value];
    assert.equal(textOf(part("seed")), "seed 1");
    click(part("another"));
    await settled();
    assert.equal(textOf(part("seed")), "seed 2");
    assert.notEqual(drawn(), first);
    assert.equal(part("dropout-place").value, place); // the place stays
    assertLosses(own.ids, own.translation);
    const { dropping } = of("training");
    const x = { shape: [2000, 1], data: new Float32Array(2000).fill(1) };
    const keptOf = (seed) => {
      const { drop, masks } = dropping({ dropout: 0.25, attention_dropout: 0 }, seed);
      const y = drop("encoder.0.feed_forward", x);
      assert.equal(drop("encoder.0.self_attention.weights", x), x); // nothing is dropped there
      assert.equal(masks.length, 1);
      y.data.forEach((one, n) => close(one, masks[0].kept[n] / 0.75, "scaled"));
      return [...masks[0].kept];
    };
    assert.deepEqual(keptOf(7), keptOf(7));
    const shares = Array.from({ length: 40 }, (_, seed) => mean(keptOf(seed)));
    close(mean(shares), 0.75, "mean", 0.01);
    assert.ok(shares.every((one) => Math.abs(one - 0.75) < 0.06));
    assert.equal(new Set(shares.map((_, seed) => keptOf(seed).join(""))).size, 40);
    let state = 7; // mulberry32, of whose numbers the first 16 bits count
    const bits = Array.from({ length: 2000 }, () => {
      let t = (state += 0x6d2b79f5);
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return Number(((t ^ (t >>> 14)) >>> 0) / 2 ** 32 >= 0.25);
    });
    assert.deepEqual(keptOf(7), bits);
    const [one, other] = [keptOf(1), keptOf(2)];
    close(mean(one.map((bit, n) => Number(bit === other[n]))), 0.75 ** 2 + 0.25 ** 2, "independent", 0.06);
    close(mean(one.slice(1).map((bit, n) => Number(bit === one[n]))), 0.75 ** 2 + 0.25 ** 2, "independent", 0.06);
  });
}
