// Tests for the beam search tree of a translation's page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, fill, press, tell, textOf } from "../../../../support/page_in_node.mjs";
import { atOnce, close, isWritten, logSoftmax, numberIn, rowOf, rowsIn, titlesOf } from "./opened_page.mjs";

// Beam search by its definition: a full pass for each hypothesis. {steps, found}: all continuations that each
// step looks at, best first, with their fates.
function searched({ of, model }, source, { beam, alpha, prefix = [] }) {
  const { bos_id, eos_id, pad_id } = model.vocabulary;
  const { max_length_factor: factor, max_extra_length: extra } = model.decoding;
  const limit = Math.floor(factor * source.length) + extra;
  const [steps, found] = [[], []];
  let live = [{ ids: [], sum: 0 }];
  for (let length = 1; length <= limit && found.length < beam && live.length; length++) {
    const only = length <= prefix.length ? prefix[length - 1] : length === limit ? eos_id : null;
    const nodes = live.flatMap(({ ids, sum }) => {
      const { logits_tv } = atOnce(of("forward").traceSlices(model, source, [bos_id, ...ids]));
      return logSoftmax(rowOf(logits_tv, ids.length)).map((own, id) => ({ ids: [...ids, id], id, own, sum: sum + own,
        before: ids }));
    }).filter(({ id }) => (only === null ? id !== pad_id && id !== bos_id : id === only))
      .sort((a, b) => b.sum - a.sum).slice(0, 2 * beam);
    let kept = 0;
    nodes.forEach((node, rank) => {
      Object.assign(node, { rank, step: length, fate: "pruned", forced: length <= prefix.length });
      if (node.id === eos_id && rank < beam) {
        Object.assign(node, { fate: "ended", score: node.sum / ((5 + length) / 6) ** alpha });
        found.push(node);
      } else if (node.id !== eos_id && kept < beam) {
        kept += 1;
        node.fate = "kept";
      }
    });
    steps.push(nodes);
    live = nodes.filter(({ fate }) => fate === "kept");
  }
  live.forEach((node) => { node.fate = "left"; });
  return { steps, found: found.sort((a, b) => b.score - a.score).slice(0, beam) };
}

export function testTree(page) {
  const { document, model, part, type, settled } = page;
  const { eos_id } = model.vocabulary;
  const pieces = model.target.pieces;
  const bias = model.weights["output_bias"].data;
  const untouched = bias.slice();
  const nodes = () => [...part("tree").querySelectorAll(".node")];
  const has = (node, name) => node.getAttribute("class").split(" ").includes(name);
  const spoken = (node) => node.getAttribute("aria-label");
  const same = (one, other) => one.join() === other.join();
  const beginsWith = (ids, some) => some.every((id, n) => ids[n] === id);

  // What the page shows of a tree is what a search by its definition finds.
  function assertTree(asked) {
    const source = page.of("computing").computeSentenceSlices;
    const { ids } = atOnce(source(model, page.box.value, null, page.of("forward").NOTHING_SWITCHED));
    const { steps, found } = searched(page, ids, asked);
    const greedy = searched(page, ids, { ...asked, beam: 1 }).found[0];
    const [best] = found;
    const shown = nodes();
    const all = steps.flat();
    assert.equal(shown.length, all.length + 1);
    assert.equal(spoken(shown[0]), "the beginning");
    assert.deepEqual([...shown[0].querySelectorAll("text")].map(textOf), ["<s>", "begin"]);
    all.forEach((node, n) => {
      const box = shown[n + 1];
      const name = spoken(box);
      const [step, place, own, sum, ...rest] = name.split(", ");
      assert.equal(step, `step ${node.step}`, name);
      const among = steps[node.step - 1].length;
      assert.equal(place, `${node.forced ? "forced" : `number ${node.rank + 1} of ${among}`}: “${pieces[node.id]}”`,
        name);
      close(numberIn(own.replace("log-probability ", "")), node.own, name, 1e-3);
      close(numberIn(sum.replace("sum ", "")), node.sum, name, 1e-3);
      const score = rest[0].startsWith("score ") ? rest.shift() : undefined;
      assert.equal(score === undefined, node.fate !== "ended", name);
      if (score) close(numberIn(score.slice(6)), node.score, name, 1e-3);
      const isReturned = node.fate !== "ended" || found.includes(node);
      const said = rest.shift();
      assert.ok(isReturned ? said.startsWith(node.fate === "left" ? "kept" : node.fate)
        && !said.includes("other translations")
        : said.startsWith("ended") , name);
      const whole = rest.join();
      assert.equal(whole.includes("higher score") || said.includes("other translations"), !isReturned, name);
      assert.equal(/not extended/.test(name), node.fate === "left", name);
      const onBest = beginsWith(best.ids, node.ids);
      const onGreedy = beginsWith(greedy.ids, node.ids) && greedy.ids.length >= node.ids.length;
      assert.equal(name.includes("part of the best"), onBest, name);
      assert.equal(name.includes("of greedy search"), onGreedy, name);
      assert.deepEqual([has(box, node.fate), has(box, "best"), has(box, "greedy"), has(box, "forced")],
        [true, onBest, onGreedy, node.forced], name);
      assert.equal(box.getAttribute("aria-level"), String(node.step + 1));
      const [label, second] = [...box.querySelectorAll("text")].map(textOf);
      const letters = [...pieces[node.id]];
      assert.equal(label, letters.length > 15 ? `${letters.slice(0, 14).join("")}…` : letters.join(""));
      close(numberIn(second.replace("score ", "")), node.score ?? node.sum, second, 0.006);
      assert.equal(second.startsWith("score "), node.score !== undefined);
      assert.equal(Number(box.querySelector("rect").getAttribute("rx")), node.fate === "ended" ? 18 : 5);
    });
    assertFound(found, asked);
    assertParting(all, best, greedy, asked);
    assertDrawing(steps, greedy);
    return { steps, found, greedy, best, all };
  }

  function assertFound(found, { alpha }) {
    const table = part("found").querySelector("table");
    assert.equal(titlesOf(table).length, 5);
    const rows = rowsIn(table);
    assert.equal(rows.length, found.length);
    rows.forEach(([text, length, sum, penalty, score], n) => {
      const { ids, sum: total } = found[n];
      assert.equal(text, model.target.decode(ids.slice(0, -1)) || "(nothing)");
      assert.equal(Number(length), ids.length);
      close(numberIn(sum), total, "sum", 1e-3);
      isWritten(penalty.replace("÷ ", ""), ((5 + ids.length) / 6) ** alpha);
      close(numberIn(score), found[n].score, "score", 1e-3);
    });
  }

  function assertParting(all, best, greedy, { beam }) {
    const said = textOf(part("tree-said"));
    if (same(best.ids, greedy.ids)) {
      assert.match(said, /finds the same translation, with the score (\S+)\.$/);
      close(numberIn(/(\S+)\.$/.exec(said)[1]), best.score, said, 1e-3);
      return;
    }
    const at = greedy.ids.findIndex((id, n) => id !== best.ids[n]);
    const quoted = (id) => `“${pieces[id]}”`;
    assert.ok(said.includes(`from step ${at + 1} on: it takes ${quoted(greedy.ids[at])}`), said);
    assert.ok(said.includes(`has ${quoted(best.ids[at])}`), said);
    const [, one, other] = /reaches the score (\S+), the best translation (\S+)\./.exec(said);
    close(numberIn(one), greedy.score, said, 1e-3);
    close(numberIn(other), best.score, said, 1e-3);
    const inTree = greedy.ids.findIndex((_, n) => !all.some(({ ids }) => same(ids, greedy.ids.slice(0, n + 1))));
    assert.equal(said.includes("drops"), inTree >= 0, said);
    if (inTree >= 0) assert.ok(said.includes(`In step ${inTree + 1}, the beam of ${beam} drops`), said);
  }

  // Boxes of a step stand below each other, steps beside each other, and lines lead from parents to children.
  function assertDrawing(steps, greedy) {
    const number = (element, name) => Number(element.getAttribute(name));
    const boxes = nodes().map((node) => node.querySelector("rect")).map((rect) =>
      ({ x: number(rect, "x"), y: number(rect, "y"), width: number(rect, "width"), height: number(rect, "height") }));
    const columns = [];
    boxes.forEach((box) => {
      if (columns.at(-1)?.[0].x === box.x) columns.at(-1).push(box);
      else columns.push([box]);
    });
    assert.deepEqual(columns.map(({ length }) => length), [1, ...steps.map(({ length }) => length)]);
    columns.forEach((column, n) => {
      column.forEach((box, m) => m && assert.ok(box.y >= column[m - 1].y + box.height));
      if (n) assert.ok(column[0].x > columns[n - 1][0].x + columns[n - 1][0].width);
    });
    const [, , width, height] = part("tree").getAttribute("viewBox").split(" ").map(Number);
    assert.deepEqual([number(part("tree"), "width"), number(part("tree"), "height")], [width, height]);
    assert.ok(boxes.every((box) => box.x >= 0 && box.y >= 20 && box.x + box.width <= width
      && box.y + box.height <= height));
    assert.ok(width < boxes.at(-1).x + boxes.at(-1).width + 50 && height < 50 + Math.max(...boxes.map(({ y }) =>
      y)) + 36);
    nodes().forEach((node, n) => { // texts have room in their boxes
      const [label, second] = node.querySelectorAll("text");
      assert.ok(boxes[n].width >= 6 * Math.max([...textOf(label)].length, textOf(second).length));
      for (const text of [label, second]) {
        assert.equal(number(text, "x"), boxes[n].x + boxes[n].width / 2);
        assert.ok(number(text, "y") > boxes[n].y && number(text, "y") < boxes[n].y + boxes[n].height);
      }
      assert.ok(number(label, "y") < number(second, "y"));
    });
    const titles = [...part("tree").querySelectorAll("text.step")];
    assert.deepEqual(titles.map(textOf), steps.map((_, n) => `step ${n + 1}`));
    titles.forEach((title, n) => assert.equal(number(title, "x"), columns[n + 1][0].x));
    const paths = [...part("tree").querySelectorAll("path.edge")];
    const ends = (path) => /^M(\S+) (\S+) C(\S+) (\S+) (\S+) (\S+) (\S+) (\S+)$/.exec(path.getAttribute("d")).slice(
      1).map(Number);
    const middle = ({ y, height: tall }) => y + tall / 2;
    const all = steps.flat();
    const solid = paths.filter((path) => !has(path, "way"));
    assert.equal(solid.length, all.length);
    solid.forEach((path, n) => {
      const { step, before } = all[n];
      const parent = step === 1 ? boxes[0] : boxes[1 + all.findIndex(({ ids }) => same(ids, before))];
      const child = boxes[n + 1];
      const [x1, y1, c1, d1, c2, d2, x2, y2] = ends(path);
      assert.deepEqual([x1, y1, x2, y2], [parent.x + parent.width, middle(parent), child.x, middle(child)]);
      assert.ok(c1 > x1 && c2 < x2 && d1 === y1 && d2 === y2);
    });
    const inTree = all.filter(({ ids }) => beginsWith(greedy.ids, ids));
    assert.equal(paths.length - solid.length, inTree.length); // a second line where greedy search goes
    paths.filter((path) => has(path, "way")).forEach((path) => {
      const y = ends(path)[7];
      assert.ok(boxes.every((box) => middle(box) !== y) && boxes.some((box) => Math.abs(middle(box) - y) < 10));
    });
  }

  const decoding = { beam: model.decoding.beam_size, alpha: model.decoding.length_penalty };

  test("the tree has all continuations of the recipe's search, and what becomes of each", () => {
    assert.equal(part("beam-size").value, String(decoding.beam));
    assert.equal(part("alpha").value, String(decoding.alpha));
    assert.equal(part("beam-size").max, "8");
    const { found } = assertTree(decoding);
    assert.equal(found.length, decoding.beam);
    assert.match(textOf(part("beam-kept")), /best 3 are kept aside. The best 3 /);
    assert.equal(part("forced").hidden, true);
  });

  test("translations that end early are kept aside, and the search ends with enough of them", async () => {
    const seen = [];
    for (const [more, beam, alpha] of [[4, 3, 0.6], [6, 2, 2], [9, 3, 0], [4, 1, 0.6]]) {
      bias[eos_id] = untouched[eos_id] + more;
      fill(part("beam-size"), String(beam));
      fill(part("alpha"), String(alpha));
      await type(`${model.sentence} ${more}`);
      seen.push(assertTree({ beam, alpha }));
      if (beam === 1) assert.ok(!textOf(part("beam-kept")).includes("best 1"));
    }
    bias.set(untouched);
    click(part("as-trained"));
    await type(model.sentence);
    seen.push(assertTree(decoding));
    const fates = new Set(seen.flatMap(({ all }) => all.map(({ fate }) => fate)));
    assert.deepEqual([...fates].toSorted(), ["ended", "kept", "left", "pruned"]);
    assert.ok(seen.some(({ best, greedy }) => !same(best.ids, greedy.ids)));
    assert.ok(seen.some(({ best, greedy }) => same(best.ids, greedy.ids)));
  });

  const at = () => part("tree").querySelector('[tabindex="0"]');
  const go = (key, given) => press(at(), key, given);
  const column = (step) => nodes().filter((node) => node.getAttribute("aria-level") === String(step + 1));

  test("arrow keys go from node to node, and say what each is", () => {
    assert.equal(at(), nodes()[0]);
    go("ArrowRight");
    const [first, second] = column(1);
    assert.equal(at(), first);
    assert.equal(document.activeElement, first);
    assert.equal(textOf(part("node-said")), spoken(first));
    go("ArrowDown");
    assert.equal(at(), second);
    assert.equal(part("tree").querySelectorAll('[tabindex="0"]').length, 1);
    go("ArrowUp");
    go("ArrowUp"); // there is none above
    assert.equal(at(), first);
    go("ArrowLeft");
    assert.equal(at(), nodes()[0]);
    go("ArrowLeft");
    go("ArrowDown");
    go("ArrowUp");
    assert.equal(at(), nodes()[0]);
    go("End");
    assert.ok(has(at(), "best") && has(at(), "ended"));
    go("Home");
    assert.equal(at(), nodes()[0]);
    assert.equal(go("ArrowRight"), false); // the page does not scroll
    assert.equal(go("a"), true);
    for (const key of ["altKey", "ctrlKey", "metaKey"]) {
      assert.equal(go("ArrowDown", { [key]: true }), true);
      assert.equal(at(), first, key);
    }
    tell(second.querySelector("text"), "pointerover");
    assert.equal(textOf(part("node-said")), spoken(second));
    tell(part("tree"), "pointerover");
    assert.equal(textOf(part("node-said")), spoken(second));
    assert.equal(at(), first);
    second.focus();
    assert.equal(at(), second);
  });

  test("Enter or a click forces the pieces up to a node; the tree then begins with them", async () => {
    go("Home");
    go("ArrowRight");
    go("ArrowRight");
    const pieceOf = (node) => /“(.*)”/.exec(spoken(node))[1];
    const first = column(1).find((node) => has(node, "kept"));
    assert.equal(at().getAttribute("aria-level"), "3");
    const names = [pieceOf(first), pieceOf(at())];
    assert.equal(go("Enter"), false);
    await settled();
    assert.equal(part("forced").hidden, false);
    assert.equal(textOf(part("forced-pieces")), names.join(" "));
    const prefix = names.map((name) => pieces.indexOf(name));
    assertTree({ ...decoding, prefix });
    assert.equal(document.activeElement, at());
    assert.deepEqual([at(), nodes().filter((node) => has(node, "forced")).length], [column(2)[0], 2]);
    click(part("free"));
    await settled();
    assert.equal(part("forced").hidden, true);
    assert.equal(at(), nodes()[0]);
    assert.equal(document.activeElement, at());
    assertTree(decoding);
    const pruned = column(1).find((node) => has(node, "pruned"));
    const name = pieceOf(pruned);
    tell(pruned.querySelector("rect"), "click");
    await settled();
    assert.equal(textOf(part("forced-pieces")), name);
    assertTree({ ...decoding, prefix: [pieces.indexOf(name)] });
    tell(part("tree"), "click"); // beside the nodes
    assert.equal(textOf(part("forced-pieces")), name);
    await type("elle"); // another sentence is free
    assert.equal(part("forced").hidden, true);
    assert.equal(document.activeElement, page.box); // where the reader types
    go("End");
    const ids = nodes().filter((node) => has(node, "best")).map(pieceOf);
    go(" ");
    await settled();
    assert.equal(textOf(part("forced-pieces")), ids.slice(0, -1).join(" ")); // without the end
    await type(model.sentence);
  });

  test("pruned continuations can be left out", () => {
    go("Home");
    const whole = nodes().length;
    const pruned = nodes().filter((node) => has(node, "pruned")).length;
    assert.ok(pruned > 0);
    click(part("pruned"));
    assert.equal(nodes().length, whole - pruned);
    assert.equal(at(), nodes()[0]);
    go("ArrowRight");
    for (let n = 0; n < 20; n++) go("ArrowDown");
    assert.equal(at(), column(1).at(-1)); // the last one that is shown
    click(part("pruned"));
    assert.equal(nodes().length, whole);
  });

  test("a beam or an α that is none changes nothing, and the recipe's can be taken again", async () => {
    const before = spoken(nodes().at(-1));
    for (const [name, value] of [["beam-size", ""], ["beam-size", "0"], ["beam-size", "9"], ["alpha", "4"],
      ["alpha", ""]]) {
      fill(part(name), value);
      await settled();
      assert.equal(spoken(nodes().at(-1)), before, `${name} ${value}`);
      fill(part("beam-size"), String(decoding.beam));
      fill(part("alpha"), String(decoding.alpha));
      await settled();
    }
    fill(part("beam-size"), "2");
    fill(part("alpha"), "1.5");
    await settled();
    assertTree({ beam: 2, alpha: 1.5 });
    assert.match(textOf(part("beam-kept")), /best 2 are kept aside. The best 2 /);
    click(part("as-trained"));
    await settled();
    assert.deepEqual([part("beam-size").value, part("alpha").value], [decoding.beam, decoding.alpha].map(String));
    assertTree(decoding);
  });

  test("the table of the tree has every node with its parent", async () => {
    const saved = [];
    URL.createObjectURL = (blob) => saved.push(blob);
    click([...part("tree-save").querySelectorAll("button")].find((one) => textOf(one) === "CSV"));
    const [head, ...lines] = (await saved[0].text()).trim().split(/\r?\n/).map((line) =>
      [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)].map(([, cell]) => cell).slice(0, 10));
    const rows = lines.map((line) => Object.fromEntries(head.map((name, n) => [name, line[n]])));
    assert.equal(rows.length, nodes().length);
    const { steps } = searched(page, [...model.source.encode(model.sentence).map(({ id }) => id), eos_id], decoding);
    assert.deepEqual([rows[0].step, rows[0].parent, rows[0].rank, rows[0].fate], ["0", "", "", "kept"]);
    steps.flat().forEach((node, n) => {
      const row = rows[n + 1];
      assert.equal(Number(row.node), n + 1);
      assert.deepEqual([row.step, row.rank, row.id, row.fate].map(String), [node.step, node.rank + 1, node.id,
        node.fate].map(String));
      close(Number(row.sum), node.sum, "sum", 1e-3);
      close(Number(row["log-probability"]), node.own, "own", 1e-3);
      assert.equal(row.score === "", node.score === undefined);
      if (row.score) close(Number(row.score), node.score, "score", 1e-3);
      const parent = rows[Number(row.parent)];
      assert.equal(Number(parent.step), node.step - 1);
      if (node.step > 1) assert.equal(Number(parent.id), node.before.at(-1));
    });
  });

  test("the search takes the switches into account", async () => {
    const before = nodes().map(spoken);
    const box = [...part("switches").querySelectorAll("label")].find((one) => textOf(one).includes("√d")).querySelector(
      "input");
    click(box);
    await settled();
    assert.notDeepEqual(nodes().map(spoken), before);
    click(box);
    await settled();
    assert.deepEqual(nodes().map(spoken), before);
  });
}
