"""Run the model of a page in Node; it computes everything that a browser would compute."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from support.node_program import answer_of_node, named_modules

# Modules that compute without a page.
PAGE = "explain/live/page"
NAMES = ("loading", "origins", "lens", "heads", "beam_tree", "training", "texts")
VIEWS = ("switches_view",)  # modules that need a page for drawing, but not for computing
MODULES = (
    *(f"{PAGE}/{name}.js" for name in NAMES + VIEWS),
    "explain/compare/page/comparing.js",
    "drawing/terms.js",
)

# The answer to each question, as a function of the model and the question's argument.
_ANSWERS = """
const plain = (value) => {
  if (value && value.shape) return { shape: value.shape, data: [...value.data].map(String) };
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, plain(part)]));
  }
  return value;
};
const answers = {
  encode: ({ side, texts }) => texts.map((text) => model[side].encode(text)),
  decode: ({ side, ids }) => ids.map((one) => model[side].decode(one)),
  trace: (asked) => plain(passOf(asked).traced),
  // Every `stride`-th cell of all tensors: how many there are, and which of them have a fault.
  origins: (asked) => {
    const { keys, ...pass } = passOf(asked);
    const cells = keys.flatMap((key) => {
      const { shape, data } = tensorAt(pass.traced, key);
      const [rows, columns] = shape.slice(-2);
      return Array.from(data, (_, n) =>
        cellIn(shape, key, [Math.floor(n / columns / rows), Math.floor(n / columns), n]));
    }).filter((_, n) => n % (asked.stride ?? 1) === 0);
    return { count: cells.length,
      faults: cells.map((cell) => faultOf(pass, cell)).filter(Boolean).slice(0, 5) };
  },
  // The way back from cells of some tensors; the numbers `ways` choose among those that went in.
  chains: ({ draws, ...asked }) => {
    const { keys, traced, used } = passOf(asked);
    const wayBack = (cell, [n, ...ways]) => {
      const { value, terms, formula } = originOf(model, traced, cell, used);
      const places = terms.flatMap(({ place, factor }) => [place, factor]).filter(Boolean);
      const next = places.length ? wayBack(places[n % places.length], ways) : [];
      return [{ ...cell, formula, value: String(value) }, ...next];
    };
    return draws.map(([n, at, ways]) => {
      const key = keys[n % keys.length];
      return wayBack(cellIn(tensorAt(traced, key).shape, key, at), ways);
    });
  },
  // Of each tensor some cells: the picture of the product, and how many terms it has.
  products: (asked) => {
    const { keys, traced, used } = passOf(asked);
    return keys.flatMap((key) => asked.cells.map((one) => {
      const { shape } = tensorAt(traced, key);
      const cell = cellIn(shape, key, one);
      const { product, terms } = originOf(model, traced, cell, used);
      return { cell, shape: shape.slice(-2), masked: numberAt(traced, cell) === -Infinity,
        product, terms: terms.length };
    }));
  },
  compute: ({ sentence, tag, switches }) => {
    const { pieces, ...found } = computeSentence(model, sentence, tag, switchesOf(switches));
    return { ids: found.ids, chosen: found.chosen, translation: found.translation,
      source: pieces.source, target: pieces.target,
      stands: found.ids.map((_, n) => standsFor(model, found, n)),
      best: found.chosen.map((_, t) => candidatesAt(found, t, 3)) };
  },
  // The largest change by each switch alone.
  effects: ({ sentence }) => {
    const known = computeSentence(model, sentence, null, NOTHING_SWITCHED);
    return allSwitches(model).map((one) => {
      const switches = freshSwitches();
      flip(switches, one, false);
      const changed = computeSentence(model, sentence, null, switches, known);
      return { ...one, isSwitched: isSwitched(switches), ...largestChange(known, changed),
        source: known.ids, target: known.traced.decoder.ids };
    });
  },
  lens: ({ source, target }) => plain(lens(model, trace(model, source, target))),
  heads: ({ sentence, switches }) => {
    const used = switchesOf(switches);
    const found = computeSentence(model, sentence, null, used);
    return plain({
      ids: found.ids, chosen: found.chosen, mean: meanCrossAttention(model, found.traced),
      drops: occlusion(model, found),
      lengths: attentionsOf(model).map(({ key }) =>
        ({ key, lengths: lengthsTaken(model, found.traced, key, used) })),
    });
  },
  compare: ({ sentence, tag, names }) => {
    const found = comparison([model, second], names, sentence, tag);
    found.sides.flatMap(({ attentions }) => attentions)
      .forEach((attention) => { attention.data = [...attention.data]; });
    return found;
  },
  // The loss of each piece, and with dropout the masks in the order in which they were drawn.
  training: ({ source, reference, smoothing, rates, seed, row: t }) => {
    const { input, target, losses, traced } = teacherForced(model, source, reference, smoothing);
    const { drop, masks } = dropping(rates, seed);
    const dropped = teacherForced(model, source, reference, smoothing, drop);
    return { input, target, losses, dropped: dropped.losses,
      wanted: targetBesideModel({ traced, target }, t, smoothing, 4),
      masks: masks.map(({ place, before, kept, scale }) =>
        ({ place, shape: before.shape, kept: [...kept], scale })) };
  },
  texts: ({ texts, sampling }) => texts.map((text) => plain(computeText(model, text, sampling))),
  // What a page says of texts: ids, and the continuation or the text with its hidden pieces.
  made: ({ texts, samplings = [null] }) => texts.map((text, n) => {
    try {
      const { ids, made, chosen, places } =
        computeText(model, text, samplings[n % samplings.length]);
      return { ids, made, chosen, places };
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return { refused: error.message };
    }
  }),
  greedy: ({ sources }) => sources.map((ids) => search(model, ids, { beam: 1 })[0]),
  beam: ({ sources }) => sources.map((ids) => search(model, ids)),
  trees: ({ sources, prefixes, beam, alpha, switches }) => sources.map((ids, n) => {
    const prefix = prefixes?.[n] ?? [];
    const tree = beamTree(model, ids, { beam, alpha, prefix, switches: switchesOf(switches) });
    const { steps, found, best, greedy } = tree;
    return {
      found, best: best.ids, csv: tableOfTree(tree, model.target.pieces),
      steps: steps.map((nodes) => nodes.map(({ ids, own, sum, fate, score, forced, parent }) =>
        ({ ids, own, sum, fate, score, forced, parent: parent.ids }))),
      greedy: { ids: greedy.end.ids, score: greedy.end.score, parts: greedy.parts,
        lost: greedy.lost, way: greedy.way.map(({ ids }) => ids) },
    };
  }),
};
const switchesOf = ({ headsOff, residualsOff, ...rest } = {}) => ({ ...NOTHING_SWITCHED, ...rest,
  headsOff: new Set(headsOff), residualsOff: new Set(residualsOff) });
const cellIn = (shape, key, [h, r, c]) => ({ key, head: hasHeads(key) ? h % shape[0] : null,
  row: r % shape.at(-2), column: c % shape.at(-1) });
const passOf = ({ source, target, text, switches }) => {
  const used = switchesOf(switches);
  const traced = text ? computeText(model, text).traced : trace(model, source, target, used);
  return { used, traced, keys: keysOf(model, traced) };
};
// What is wrong with the origin of a number, or null.
const faultOf = ({ traced, used }, cell) => {
  const number = numberAt(traced, cell);
  const { value, terms, ...rest } = originOf(model, traced, cell, used);
  const asked = rowsOfTerms({ value, terms, ...rest }).filter(({ mark }) => mark === "asked");
  const isClose = (one) => one === number || Math.abs(one / number - 1) <= 1e-5;
  const isOf = (place, one) => !place || numberAt(traced, place) === one;
  const isRight = isClose(value) && asked.length === 1 && isClose(asked[0].value) &&
    terms.every(({ place, a, b, factor }) => isOf(place, a) && isOf(factor, b));
  return isRight ? null : { cell, number: String(number), value: String(value), asked };
};
const fs = require("node:fs");
const [packed, questions, other] = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
let [model, second] = [null, null];
Promise.all([packed, other ?? packed].map(loadLiveModel)).then((loaded) => {
  [model, second] = loaded;
  const found = questions.map(([name, argument]) => answers[name](argument));
  fs.writeFileSync(process.argv[3], JSON.stringify(found));
});
"""


def ask(
    packed: dict[str, Any],
    folder: Path,
    *questions: tuple[str, dict[str, Any]],
    other: dict[str, Any] | None = None,
) -> list[Any]:
    """Load a packed model in Node, and return an answer to each question (name, argument).

    Args:
        other: a second packed model, for the question `compare`.
    """
    code = named_modules(*MODULES) + _ANSWERS
    return answer_of_node(code, [packed, questions, other], folder)


def close(name: str, live: Any, expected: Tensor) -> None:
    """Check that the tensors agree within 1e-5 of the largest number, and in the places of −∞."""
    found = torch.tensor([float(x) for x in live["data"]]).view(live["shape"])
    assert found.shape == expected.shape, name
    infinite = expected.isinf()
    assert torch.equal(found.isinf(), infinite), name
    found, expected = found[~infinite], expected[~infinite]
    difference, largest = (found - expected).abs().max(), expected.abs().max()
    assert difference <= 1e-5 * largest, (name, difference, largest)


def compare(name: str, live: Any, traced: Any) -> None:
    """Check every tensor of a trace against the page's tensor of the same name."""
    if traced is None:
        assert live is None, name
    elif isinstance(traced, torch.Tensor):
        if name.endswith("ids_bt"):
            assert live == traced[0].tolist(), name
        else:
            close(name, live, traced[0] if not name.endswith("positions_tm") else traced)
    elif isinstance(traced, tuple):
        assert len(live) == len(traced), name
        for number, (one, other) in enumerate(zip(live, traced, strict=True)):
            compare(f"{name}.{number}", one, other)
    else:
        assert is_dataclass(traced)
        for field in fields(traced):
            axes = field.name.rpartition("_")
            unbatched = f"{axes[0]}_{axes[2][1:]}" if axes[2].startswith("b") else field.name
            key = "ids" if field.name == "ids_bt" else unbatched
            compare(f"{name}.{field.name}", live[key], getattr(traced, field.name))
