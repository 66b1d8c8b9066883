"""The translations of a sentence's parts as one, scored as if it had been found as one."""

import pytest

from model.generation.search import length_penalty
from transloom.inference.translation import Translation, joined

PARTS = [
    Translation("one two", -1.5, (5, 6, 7)),
    Translation("", -0.5, ()),
    Translation("three", -2.0, (8,)),
]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_its_log_probability_is_the_sum_of_those_of_the_parts(alpha):
    found = joined(PARTS, alpha)
    lengths = [len(part.ids) + 1 for part in PARTS]  # with EOS
    parts = zip(PARTS, lengths, strict=True)
    log_probability = sum(part.score * length_penalty(length, alpha) for part, length in parts)
    assert found.score == pytest.approx(log_probability / length_penalty(7, alpha))
    assert found.text == "one two three"
    assert found.ids == (5, 6, 7, 8)


def test_one_part_is_the_translation():
    assert joined(PARTS[:1], 0.6) is PARTS[0]


def test_parts_without_text_are_a_translation_without_text():
    assert joined([PARTS[1], PARTS[1]], 0.6).text == ""
