"""Scores of labels: accuracy, F1 of the labels, and F1 of spans.

expected and predicted labels ─▶ accuracy, macro-F1
tags of sentences, of the form O, B-X, I-X ─▶ spans ─▶ span-F1
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class LabelSpan(NamedTuple):
    """Words `start` to `stop` (exclusive) of a sentence, with the kind of the span."""

    start: int
    stop: int
    kind: str


def accuracy(expected: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of correct labels, in percent."""
    return 100 * float(np.mean(expected == predicted))


def macro_f1(expected: np.ndarray, predicted: np.ndarray, labels: int) -> float:
    """Return the mean F1 of the labels that are expected or predicted, in percent.

    F1 = 2 · right / (expected + predicted) (van Rijsbergen 1979); each label has the same weight.
    """
    there, found = (np.bincount(numbers, minlength=labels) for numbers in (expected, predicted))
    right = np.bincount(expected[expected == predicted], minlength=labels)
    seen = there + found > 0
    return 100 * float(np.mean(2 * right[seen] / (there + found)[seen]))


def span_f1(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Return F1 of all spans of all sentences together, in percent (Tjong Kim Sang et al. 2003).

    This is the score of CoNLL. A predicted span is correct if an expected span has the same borders
    and the same kind. F1 is 0 if no span is expected or predicted.
    """
    right = there = found = 0
    for mine, theirs in zip(expected, predicted, strict=True):
        wanted, made = set(spans(mine)), set(spans(theirs))
        right += len(wanted & made)
        there += len(wanted)
        found += len(made)
    return 100 * 2 * right / (there + found) if there + found else 0.0


def spans(tags: Sequence[str]) -> Iterator[LabelSpan]:
    """Yield the spans of a sentence's tags, as CoNLL's script counts them.

    A span begins at every B-X, and at an I-X that does not continue a span of the kind X.
    """
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, of = tag.partition("-")
        if prefix == "I" and of == kind:
            continue
        if kind:
            yield LabelSpan(start, place, kind)
        start, kind = place, of
