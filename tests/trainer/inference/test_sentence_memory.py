"""How long sentences are cut, and what a sentence takes of memory."""

import copy
import random

import pytest

from model.config import DecodingConfig, ModelConfig
from trainer.inference.sentence_memory import (
    LongSentenceError,
    SentenceLimit,
    SentenceMemory,
    parts_of,
)


def words_and_eos(texts):
    """Tokens of a tokenizer of words, which spells long ones and Chinese ones."""
    return [1 + sum(map(_tokens, text.split())) for text in texts]


def _tokens(word):
    return len(word) if len(word) > 7 or max(word) > "\u3000" else 1


def test_what_fits_stays_whole():
    assert parts_of("One two. Three.", 4, words_and_eos) == ["One two. Three."]
    assert parts_of("", 2, words_and_eos) == [""]


@pytest.mark.parametrize(
    ("text", "most", "parts"),
    [
        ("One two. Three. Four five six.", 4, ["One two. Three.", "Four five six."]),
        ("One two three. “Four?” Five six", 4, ["One two three.", "“Four?” Five six"]),
        ("one two three four. Five.", 3, ["one two", "three four.", "Five."]),
        ("one abcdefgh two", 5, ["one", "abcd", "efgh", "two"]),
        ("一二。三四。", 7, ["一二。三四。"]),
        ("一二三四五六。七八九十。", 8, ["一二三四五六。", "七八九十。"]),
        ("  a \t b  ", 2, ["a", "b"]),
    ],
)
def test_it_is_cut_at_sentence_ends_then_spaces_then_anywhere(text, most, parts):
    assert parts_of(text, most, words_and_eos) == parts


def test_parts_are_short_enough_and_lose_nothing():
    rng = random.Random(1)
    for most in (2, 3, 7, 20):
        text = "".join(rng.choices("abcdefg。.!? \t\u3000é", k=3000))
        parts = parts_of(text, most, words_and_eos)
        assert max(words_and_eos(parts)) <= most
        assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_character_of_many_tokens_stays_one():
    def many(texts):
        return [1 + 18 * len(text) for text in texts]

    assert parts_of("ab", 10, many) == ["a", "b"]


def test_memory_grows_with_the_square_and_gives_the_longest_sentence():
    memory = SentenceMemory(ModelConfig(), DecodingConfig(), element_bytes=4)
    assert memory.bytes(20_000) > 3 * memory.bytes(10_000) > 3e10
    for available in (0, 10**6, 10**9, 10**12):
        longest = memory.longest(available)
        assert memory.bytes(longest + 1) > available
        assert longest == 0 or memory.bytes(longest) <= available


def test_a_decoder_remembers_heads_of_keys_and_values():
    shared = ModelConfig(key_value_heads=2)  # of 8
    few, all_ = (
        SentenceMemory(c, DecodingConfig(), 4).of_position for c in (shared, ModelConfig())
    )
    assert all_ == 4 * few


def test_what_is_too_long_is_told_from_one_process_to_another():
    error = LongSentenceError([(2, 700)], SentenceLimit(512, "memory"))
    there = copy.copy(error)  # made anew in the way of pickle
    assert (str(there), there.sentences, there.limit) == (str(error), ((2, 700),), error.limit)
