"""Splitting of long sentences, and the memory that a sentence needs."""

import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest

from model.config.transformer import DecodingConfig, ModelConfig
from trainer.errors import TranslationError
from transloom.inference import sentence_memory
from transloom.inference.sentence_memory import (
    LongSentenceError,
    SentenceLimit,
    SentenceMemory,
    parts_of,
)


def words_and_eos(texts):
    """Count tokens: one per word, one per character of long and Chinese words, and EOS."""
    return [1 + sum(map(_tokens, text.split())) for text in texts]


def _tokens(word):
    return len(word) if len(word) > 7 or max(word) > "\u3000" else 1


def test_a_sentence_within_the_limit_is_not_split():
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
def test_text_is_split_at_sentence_ends_then_spaces_then_anywhere(text, most, parts):
    assert parts_of(text, most, words_and_eos) == parts


def test_parts_are_within_the_limit_and_keep_all_characters():
    rng = random.Random(1)
    for most in (2, 3, 7, 20):
        text = "".join(rng.choices("abcdefg。.!? \t\u3000é", k=3000))
        parts = parts_of(text, most, words_and_eos)
        assert max(words_and_eos(parts)) <= most
        assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_character_of_many_tokens_is_not_split():
    def many(texts):
        return [1 + 18 * len(text) for text in texts]

    assert parts_of("ab", 10, many) == ["a", "b"]


def test_the_longest_sentence_is_the_longest_that_fits_in_memory():
    memory = SentenceMemory(ModelConfig(), DecodingConfig(), element_bytes=4)
    assert memory.bytes(20_000) > 3 * memory.bytes(10_000) > 3e10
    for available in (0, 10**6, 10**9, 10**12):
        longest = memory.longest(available)
        assert memory.bytes(longest + 1) > available
        assert longest == 0 or memory.bytes(longest) <= available


def test_the_cache_size_depends_on_the_number_of_key_value_heads():
    shared = ModelConfig(key_value_heads=2)  # the default is 8
    few, all_ = (
        SentenceMemory(c, DecodingConfig(), 4).of_position for c in (shared, ModelConfig())
    )
    assert all_ == 4 * few


def test_memory_is_the_sum_of_attention_scores_and_caches_of_hypotheses():
    """Computed by hand: three copies of a layer's scores, and a cache of twice the positions."""
    config = ModelConfig(decoder_layers=3, width=32, heads=4, key_value_heads=2)
    decoding = DecodingConfig(beam_size=5, max_length_factor=1.5, max_extra_length=7)
    memory = SentenceMemory(config, decoding, element_bytes=2)
    assert memory.of_position == 2 * 3 * (2 * 8) * 5 * 2  # keys and values, layers, heads, beam
    assert memory.of_score == 4 * 2
    output = 15 + 7  # int(1.5 * 10) and max_extra_length
    assert memory.bytes(10) == 3 * 8 * 10**2 + 2 * memory.of_position * (10 + output)


def test_an_ensemble_needs_all_caches_but_only_the_largest_scores():
    first, other = ModelConfig(width=64, heads=4), ModelConfig(width=32, heads=8, decoder_layers=2)
    one, two, both = (
        SentenceMemory(configs[0], DecodingConfig(), 4, configs[1:])
        for configs in ((first,), (other,), (first, other))
    )
    assert both.of_position == one.of_position + two.of_position
    assert both.of_score == max(one.of_score, two.of_score) == two.of_score


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("training", r"trained on at most 1,234 \(data\.max_source_length\)"),
        ("wish", "the requested maximum is 1,234"),
        ("memory", "available memory suffices for only 1,234"),
    ],
)
def test_the_error_names_the_first_too_long_sentence_and_its_limit(reason, told):
    error = LongSentenceError([(2, 5678), (7, 9999)], SentenceLimit(1234, reason))
    with pytest.raises(
        TranslationError, match=rf"^Sentence 3 has 5,678 tokens.*{told}.* Split the sentence"
    ):
        raise error
    assert error.sentences == ((2, 5678), (7, 9999))


@pytest.mark.parametrize("at_once", [1, 6, 7, 10**6])
def test_tokens_are_counted_in_groups_of_limited_characters(monkeypatch, at_once):
    monkeypatch.setattr(sentence_memory, "CHARACTERS_COUNTED_AT_ONCE", at_once)
    tokenizer = OfCharacters()
    sentences = ["abc", "", "de", "fghijklmno", "p", ""]
    found = sentence_memory.count_tokens(tokenizer, sentences, "<2de>")
    assert found == [len(sentence) + 2 for sentence in sentences]  # the tag and EOS
    assert [text for some in tokenizer.encoded for text in some] == sentences
    for some in tokenizer.encoded:
        assert sum(map(len, some[:-1])) < at_once  # the last one fills the group
    assert sentence_memory.count_tokens(tokenizer, []) == []


class OfCharacters:
    """A tokenizer of characters that records the texts of each call."""

    def __init__(self):
        self.encoded = []

    def encode_field(self, texts, tag):
        self.encoded.append(texts)
        return SimpleNamespace(
            lengths=np.array([len(text) + 1 + (tag is not None) for text in texts])
        )


def test_the_error_about_long_sentences_can_be_pickled():
    error = LongSentenceError([(2, 700)], SentenceLimit(512, "memory"))
    there = copy.copy(error)  # copies in the same way as pickle
    assert (str(there), there.sentences, there.limit) == (str(error), ((2, 700),), error.limit)
