"""Seeds of random segmentations equal golden numbers; samples that are too long are replaced."""

from collections.abc import Callable

import numpy as np
import pytest

from data_pipeline.arrays import FieldArrays, Int64Array, UInt64Array
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.random_keys import SUBWORD_SAMPLING, example_seeds
from data_pipeline.tasks.pairs import resample
from data_pipeline.tokenizers.tokenizer import Tokenizer, train_tokenizer

PAIRS = np.arange(1000, 1300)


@pytest.fixture(scope="module")
def text(sentences: Callable[[int, int], list[str]]) -> list[str]:
    return sentences(300, 7)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest, text: list[str]) -> Tokenizer:
    config = TokenizerConfig(type=request.param, vocabulary_size=110)
    return train_tokenizer(text, config, "test", ["<bt>"])


def sampling_seeds(
    seed: int, pass_number: int, pair_ids: Int64Array, field_number: int
) -> UInt64Array:
    return example_seeds(SUBWORD_SAMPLING, seed, pass_number, field_number, pair_ids)


def sequences(field: FieldArrays) -> list[list[int]]:
    return [ids.tolist() for ids in np.split(field.ids, np.cumsum(field.lengths)[:-1])]


def test_sampling_seeds_equal_golden_numbers() -> None:
    """The data of every released run depends on these numbers. Never change them."""
    seeds = sampling_seeds(1, 0, np.array([0, 1, 70_000]), 0)
    assert seeds.dtype == np.uint64
    assert [hex(seed) for seed in seeds.tolist()] == [
        "0xaa8a2857e440a308",
        "0x72a4f16ca8fa12e5",
        "0x76ef860bd0114d0e",
    ]
    assert hex(sampling_seeds(42, 3, np.array([5]), 1)[0]) == "0xe7085708888e92a4"


def test_a_seed_depends_only_on_its_pair() -> None:
    together = sampling_seeds(1, 2, PAIRS, 0)
    order = np.random.default_rng(0).permutation(len(PAIRS))
    assert (sampling_seeds(1, 2, PAIRS[order], 0) == together[order]).all()
    assert (sampling_seeds(1, 2, PAIRS[50:60], 0) == together[50:60]).all()
    assert sampling_seeds(1, 2, PAIRS[:1], 0).tolist() == [together[0]]
    assert sampling_seeds(1, 2, PAIRS[:0], 0).tolist() == []


def test_the_seeds_of_different_words_are_all_different() -> None:
    words = [(1, 0, 0), (2, 0, 0), (-1, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 0)]
    seeds = np.concatenate(
        [sampling_seeds(seed, passed, PAIRS, field) for seed, passed, field in words]
    )
    assert len(set(seeds.tolist())) == len(seeds)


def test_each_pass_has_different_pieces_of_the_same_text(
    tokenizer: Tokenizer, text: list[str]
) -> None:
    stored = tokenizer.encode_field(text, "<bt>")

    def in_pass(seed: int, number: int, part: slice = slice(None)) -> list[list[int]]:
        sampled = resample(
            tokenizer,
            text[part],
            tokenizer.encode_field(text[part], "<bt>"),
            sampling_seeds(seed, number, PAIRS[part], 0),
            alpha=0.1,
            max_length=1000,
            tag="<bt>",
        )
        assert sampled.ids.dtype == sampled.lengths.dtype == np.int32
        assert tokenizer.decode(sequences(sampled)) == text[part]
        assert {ids[0] for ids in sequences(sampled)} == {tokenizer.tag_id("<bt>")}
        return sequences(sampled)

    first = in_pass(1, 0)
    assert in_pass(1, 0) == first
    assert in_pass(1, 0, slice(100, 200)) == first[100:200]
    for other in (in_pass(1, 1), in_pass(2, 0), sequences(stored)):
        assert sum(a != b for a, b in zip(first, other, strict=True)) > 0.7 * len(text)


@pytest.mark.parametrize("tag", [None, "<bt>"])
def test_a_sample_that_is_too_long_keeps_its_stored_pieces(
    tokenizer: Tokenizer, text: list[str], tag: str | None
) -> None:
    stored = tokenizer.encode_field(text, tag)
    seeds = sampling_seeds(1, 0, PAIRS, 0)
    sampled = sequences(tokenizer.sample_field(text, seeds, 0.2, tag))
    limit = int(stored.lengths.max())
    found = resample(tokenizer, text, stored, seeds, alpha=0.2, max_length=limit, tag=tag)
    assert found.lengths.max() <= limit
    expected = [
        drawn if len(drawn) <= limit else best
        for drawn, best in zip(sampled, sequences(stored), strict=True)
    ]
    assert sequences(found) == expected
    assert expected not in (sampled, sequences(stored))

    none = resample(tokenizer, text, stored, seeds, alpha=0.2, max_length=0, tag=tag)
    assert sequences(none) == sequences(stored)
    empty = stored.take(np.arange(0))
    assert not len(resample(tokenizer, [], empty, seeds[:0], alpha=0.2, max_length=9, tag=tag).ids)
