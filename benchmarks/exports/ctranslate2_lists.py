"""Compare a run in CTranslate2 with its own search on all lines of a file; explain each difference.

    python benchmarks/exports/ctranslate2_lists.py RUN SOURCES [--lines N] [--beam 5] [--alpha A …]

Compared are greedy translations, the best translations of a beam, and whole n-best lists, all as
`transloom translate RUN --engine ctranslate2` returns them, in float32, a line at a time. A list
that differs has one of these reasons, or no known one:

- tie: the hypotheses that differ, or whose order differs, have scores within 1e-3.
- order: the two length penalties order hypotheses differently. By transloom's penalty, each
  hypothesis that only transloom returns is better than each that only CTranslate2 returns; by
  CTranslate2's penalty, each is worse. More hypotheses than the beam size ended in the last step,
  and each search keeps the best by its order. Without a penalty (--alpha 0), both orders are equal,
  so this reason is impossible.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from model.generation.search import length_penalty
from transloom.inference.ctranslate2.searcher import exponent_near
from transloom.inference.engine_names import ComputeType, Engine
from transloom.inference.translation import Translation
from transloom.inference.translator import Translator

TIE = 1e-3  # in nats; CTranslate2's log-probabilities equal ours within this bound


def main() -> None:
    options = _options()
    ours = Translator.load(options.run, options.checkpoint)
    theirs = Translator.load(
        options.run,
        options.checkpoint,
        engine=Engine.CTRANSLATE2,
        compute_type=ComputeType.FLOAT32,
    )
    lines = options.sources.read_text(encoding="utf-8").splitlines()[: options.lines]
    report: dict[str, Any] = {"lines": len(lines), "greedy": _compared(ours, theirs, lines, 1, 0)}
    for alpha in options.alpha:
        report[f"beam {options.beam}, alpha {alpha}"] = _compared(
            ours, theirs, lines, options.beam, alpha
        )
    print(json.dumps(report, indent=1, ensure_ascii=False))


def _options() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--lines", type=int)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.0, 1.0])
    return parse_arguments(parser, smoke="{run} {corpus}/train.en --lines 3")


def _compared(
    ours: Translator, theirs: Translator, lines: list[str], beam: int, alpha: float
) -> dict[str, Any]:
    for translator in (ours, theirs):
        translator.decoding = translator.decoding.model_copy(
            update={"beam_size": beam, "length_penalty": alpha}
        )
    best_differ = 0
    lists_differ: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        (mine,), (other,) = (each.translate_n_best([line], n_best=beam) for each in (ours, theirs))
        best_differ += mine[0].ids != other[0].ids
        if [each.ids for each in mine] != [each.ids for each in other]:
            exponent = exponent_near(alpha, len(ours.source_ids(line)))
            lists_differ.append({"line": number, **_explained(mine, other, alpha, exponent)})
    return {"best_differ": best_differ, "lists_differ": lists_differ}


def _explained(
    mine: list[Translation], other: list[Translation], alpha: float, exponent: float
) -> dict[str, Any]:
    """Return the reason why two lists differ, and the hypotheses that only one of them has."""
    only_mine = _without(mine, other)
    only_other = _without(other, mine)
    pairs = list(product(only_mine, only_other))
    if len(mine) == len(other) and all(
        abs(one.score - two.score) < TIE for one, two in zip(mine, other, strict=True)
    ):
        reason = "tie"
    elif pairs and all(
        one.score > two.score
        and _their_score(one, alpha, exponent) < _their_score(two, alpha, exponent)
        for one, two in pairs
    ):
        reason = "order"
    else:
        reason = "unexplained"
    return {
        "reason": reason,
        "transloom": [_told(each, alpha, exponent) for each in only_mine],
        "ctranslate2": [_told(each, alpha, exponent) for each in only_other],
    }


def _without(these: list[Translation], those: list[Translation]) -> list[Translation]:
    known = {each.ids for each in those}
    return [each for each in these if each.ids not in known]


def _their_score(found: Translation, alpha: float, exponent: float) -> float:
    length = len(found.ids) + 1  # EOS included
    return found.score * length_penalty(length, alpha) / length**exponent


def _told(found: Translation, alpha: float, exponent: float) -> dict[str, Any]:
    return {
        "text": found.text,
        "score": round(found.score, 4),
        "their_score": round(_their_score(found, alpha, exponent), 4),
    }


if __name__ == "__main__":
    main()
