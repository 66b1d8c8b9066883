"""Joining translations of a sentence's parts, scored like the translation of a whole sentence."""

import pytest

from model.generation.search import length_penalty
from transloom.inference.translation import Translation, joined

PARTS = [
    Translation("one two", -1.5, (5, 6, 7)),
    Translation("", -0.5, ()),
    Translation("three", -2.0, (8,)),
]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_the_joined_log_probability_is_the_sum_over_the_parts(alpha):
    found = joined(PARTS, alpha)
    lengths = [len(part.ids) + 1 for part in PARTS]  # including EOS
    parts = zip(PARTS, lengths, strict=True)
    log_probability = sum(part.score * length_penalty(length, alpha) for part, length in parts)
    assert found.score == pytest.approx(log_probability / length_penalty(7, alpha))
    assert found.text == "one two three"
    assert found.ids == (5, 6, 7, 8)


def test_joining_a_single_part_returns_this_part():
    assert joined(PARTS[:1], 0.6) is PARTS[0]


def test_joining_parts_without_text_gives_an_empty_text():
    assert joined([PARTS[1], PARTS[1]], 0.6).text == ""
