"""Masking: shares of masked tokens, whole words, and dependence only on example and position."""

from types import SimpleNamespace

import numpy as np
import pytest

from data_pipeline.arrays import FieldArrays, concatenate
from data_pipeline.config.masking import MaskingConfig
from data_pipeline.dataset.manifest_header import SpecialIds
from data_pipeline.random_keys import (
    MASKED_TOKENS,
    example_seeds,
    splitmix64,
    uniform_at_positions,
)
from data_pipeline.tasks.masking import IGNORE_INDEX, MASK, mask_tokens, vocabulary_of

PIECES = ["<pad>", "<unk>", "<s>", "</s>", MASK, *(f"▁{n}" for n in range(40)), *"abcdefghij"]
SPECIAL = range(5)
BOS, EOS, MASK_ID = 2, 3, 4


class Tokenizer(SimpleNamespace):
    __hash__ = object.__hash__

    def __init__(self, pieces):
        super().__init__(
            special_ids=SpecialIds(pad=0, unk=1, bos=BOS, eos=EOS),
            vocabulary_size=len(pieces),
            piece=pieces.__getitem__,
        )

    def tag_id(self, tag):
        return PIECES.index(tag)


VOCABULARY = vocabulary_of(Tokenizer(PIECES))


def texts(lengths, seed=1):
    """Return random texts: BOS, tokens of which about a third continue a word, EOS."""
    random = np.random.default_rng(seed)
    sequences = []
    for length in lengths:
        words = random.integers(5, 45, length)
        inner = random.integers(45, len(PIECES), length)
        sequences.append([BOS, *np.where(random.random(length) < 0.3, inner, words), EOS])
    return FieldArrays(
        np.array([token for each in sequences for token in each], dtype=np.uint16),
        np.array(list(map(len, sequences)), dtype=np.int32),
    )


def seeds_of(numbers, seed=5, pass_number=0):
    return lambda use: example_seeds(use, seed, pass_number, 0, np.array(numbers))


def masked(field, numbers=None, where=None, **settings):
    numbers = range(len(field.lengths)) if numbers is None else numbers
    where = where or {}
    return mask_tokens(
        field, VOCABULARY, MaskingConfig(**settings), seeds_of(list(numbers), **where)
    )


def test_random_numbers_at_positions_are_outputs_of_each_example_s_generator():
    seeds = example_seeds(MASKED_TOKENS, 3, 1, 0, np.array([4, 900, 0]))
    found = uniform_at_positions(seeds, np.array([3, 1, 7], dtype=np.int32))
    keys = [key for seed, n in zip(seeds, (3, 1, 7), strict=True) for key in splitmix64(seed, n)]
    assert found.tolist() == [(int(key) >> 11) / 2**53 for key in keys]
    assert 0 <= found.min() <= found.max() < 1


def test_the_shares_of_masked_and_random_tokens_are_those_of_the_recipe():
    field = texts([40] * 3000)
    seen, labels = masked(field, share=0.2, masked=0.7, random=0.2)
    ordinary = ~np.isin(field.ids, SPECIAL)
    hidden = labels.ids != IGNORE_INDEX
    assert not (hidden & ~ordinary).any()
    assert (labels.ids[hidden] == field.ids[hidden]).all()
    assert (seen.ids[~hidden] == field.ids[~hidden]).all()
    assert hidden.sum() / ordinary.sum() == pytest.approx(0.2, abs=0.004)
    now, before = seen.ids[hidden], field.ids[hidden]
    assert (now == MASK_ID).mean() == pytest.approx(0.7, abs=0.01)
    drawn = now[(now != MASK_ID) & (now != before)]
    pieces = len(PIECES) - len(SPECIAL)
    assert len(drawn) / len(now) == pytest.approx(0.2 * (1 - 1 / pieces), abs=0.01)
    counts = np.bincount(drawn, minlength=len(PIECES))
    assert not counts[SPECIAL].any()
    assert counts[5:].min() > 0.7 * counts[5:].mean()
    assert seen.ids.dtype == labels.ids.dtype == np.int32
    assert (seen.lengths == field.lengths).all()


def test_the_default_shares_are_those_of_bert():
    hidden = masked(texts([40] * 2000)).labels.ids != IGNORE_INDEX
    assert hidden.sum() / (2000 * 40) == pytest.approx(0.15, abs=0.004)
    assert MaskingConfig().model_dump() == {
        **{"share": 0.15, "masked": 0.8, "random": 0.1, "whole_words": False}
    }


def test_masking_depends_only_on_example_and_position():
    lengths = [7, 30, 1, 12, 19]
    field = texts(lengths)
    together = masked(field, [3, 10, 11, 40, 41])
    parts = [masked(field.part(n, n + 1), [number]) for n, number in enumerate((3, 10, 11, 40, 41))]
    for found, name in ((together.seen, "seen"), (together.labels, "labels")):
        alone = concatenate([getattr(part, name) for part in parts])
        assert found.ids.tolist() == alone.ids.tolist()
    other_texts = masked(texts(lengths, seed=2), [3, 10, 11, 40, 41])
    hidden, other = (x.labels.ids != IGNORE_INDEX for x in (together, other_texts))
    assert hidden.tolist() == other.tolist()


@pytest.mark.parametrize("changed", [{"seed": 6}, {"pass_number": 1}])
def test_a_different_seed_or_pass_masks_different_tokens(changed):
    field = texts([30] * 20)
    first = masked(field)
    assert masked(field).labels.ids.tolist() == first.labels.ids.tolist()
    other = masked(field, where=changed)
    hidden, now_hidden = (x.labels.ids != IGNORE_INDEX for x in (first, other))
    assert (hidden & now_hidden).sum() < 0.3 * hidden.sum()


@pytest.mark.parametrize("whole_words", [False, True])
def test_each_text_has_a_token_to_predict(whole_words):
    field = texts([1, 2, 3] * 50)
    labels = masked(field, share=0.01, whole_words=whole_words).labels
    starts = np.cumsum(labels.lengths) - labels.lengths
    assert (np.add.reduceat(labels.ids != IGNORE_INDEX, starts) >= 1).all()
    nothing = FieldArrays(np.array([BOS, EOS]), np.array([2], dtype=np.int32))
    assert (masked(nothing).labels.ids == IGNORE_INDEX).all()


def test_with_whole_words_all_tokens_of_a_word_are_masked_or_none():
    field = texts([40] * 500)
    hidden = masked(field, whole_words=True).labels.ids != IGNORE_INDEX
    word, words = -1, []
    for at, token in enumerate(field.ids.tolist()):
        after_bos = at and field.ids[at - 1] == BOS
        word += token in SPECIAL or PIECES[token].startswith("▁") or bool(after_bos)
        words.append(word)
    shares = np.bincount(words, weights=hidden) / np.bincount(words)
    assert set(shares) == {0.0, 1.0}
    assert max(np.bincount(words)) > 2
    ordinary = ~np.isin(field.ids, SPECIAL)
    assert hidden.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.01)


def test_shares_whose_sum_exceeds_1_are_refused():
    with pytest.raises(ValueError, match=r"masked is 0\.8 and random is 0\.3, but their sum"):
        MaskingConfig(random=0.3)
    assert masked(texts([9]), share=0.5, masked=1.0, random=0.0).seen.ids.max() < len(PIECES)
