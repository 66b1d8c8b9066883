"""Scores of labels, compared with direct counting by their definitions."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.tasks.label_scores import accuracy, macro_f1, span_f1, spans

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)
TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]
tags = st.lists(st.sampled_from(TAGS), max_size=9)


@given(pairs)
def test_accuracy_and_macro_f1_equal_direct_counts(given):
    expected, told = (np.array(side) for side in zip(*given, strict=True))
    assert accuracy(expected, told) == pytest.approx(
        100 * sum(a == b for a, b in given) / len(given)
    )
    scores = []
    for label in {label for pair in given for label in pair}:
        right = sum(pair == (label, label) for pair in given)
        told_so = sum(made == label for _, made in given)
        there = sum(wanted == label for wanted, _ in given)
        precision = right / told_so if told_so else 0.0
        recall = right / there if there else 0.0
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    assert macro_f1(expected, told, 6) == pytest.approx(100 * sum(scores) / len(scores))


def spans_by_pattern(given):
    """Return runs of one kind: I-X continues X; elsewhere B-X or I-X starts a run."""
    letters = "".join({"O": "o", "B-A": "A", "I-A": "a", "B-B": "B", "I-B": "b"}[t] for t in given)
    found = re.finditer(r"[Aa]a*|[Bb]b*", letters)
    return [(match.start(), match.end(), match.group()[0].upper()) for match in found]


@given(tags)
def test_spans_equal_those_of_a_regular_expression(given):
    assert list(spans(given)) == spans_by_pattern(given)


@given(
    st.lists(
        st.integers(0, 7).flatmap(
            lambda n: st.tuples(*[st.lists(st.sampled_from(TAGS), min_size=n, max_size=n)] * 2)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_span_f1_equals_a_direct_count(sentences):
    expected, told = zip(*sentences, strict=True)
    there, found = (
        {(number, *span) for number, of_one in enumerate(side) for span in spans_by_pattern(of_one)}
        for side in (expected, told)
    )
    right, total = len(there & found), len(there) + len(found)
    assert span_f1(expected, told) == pytest.approx(200 * right / total if total else 0.0)


def test_span_f1_requires_the_same_boundaries_and_kind():
    expected = [["B-A", "I-A", "O", "B-B"]]
    assert span_f1(expected, expected) == 100
    assert span_f1(expected, [["B-A", "O", "O", "B-B"]]) == 50
    assert span_f1(expected, [["B-A", "I-A", "O", "B-A"]]) == 50
    assert span_f1(expected, [["O"] * 4]) == 0
