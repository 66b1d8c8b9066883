"""The sentences of the built-in phrase book."""

import bz2
import hashlib
import re
from collections import Counter
from itertools import combinations

import pytest

from data_pipeline.errors import CorpusError
from data_pipeline.storage.phrasebook import FILE, SPLITS, phrasebook_pairs

# Hash of the whole book, with every sentence in its place. If the book changes, every dataset made
# from it changes, so this value must be changed on purpose.
BOOK_SHA256 = "842e6dae0fe6f18b42e9937c27b8564ee1dfd61ea5cca716795a8c7c337e7bc1"


def test_the_book_equals_its_golden_hash() -> None:
    assert hashlib.sha256(bz2.decompress(FILE.read_bytes())).hexdigest() == BOOK_SHA256
    lines = [f"{split}\t{f}\t{e}" for split in SPLITS for f, e in phrasebook_pairs(split)]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == BOOK_SHA256


def test_the_sizes_of_the_book_suit_a_demonstration() -> None:
    train, validation, test = map(phrasebook_pairs, SPLITS)
    assert (len(validation), len(test)) == (500, 1000)
    assert 24_000 <= len(train) <= 30_000
    lengths = Counter(len(french.split()) for french, _ in train)
    assert sum(count for length, count in lengths.items() if length > 12) < 100
    assert max(lengths) <= 15


def test_each_call_returns_a_new_list() -> None:
    phrasebook_pairs("validation").clear()
    assert len(phrasebook_pairs("validation")) == 500


def test_an_unknown_split_is_refused_with_the_known_splits() -> None:
    with pytest.raises(CorpusError, match=r"'dev'.*train, validation, test"):
        phrasebook_pairs("dev")


@pytest.mark.parametrize("side", [0, 1], ids=["French", "English"])
def test_held_out_sentences_are_new_but_consist_of_known_words(side: int) -> None:
    sentences = {split: [pair[side] for pair in phrasebook_pairs(split)] for split in SPLITS}
    for split, found in sentences.items():
        assert len(set(found)) == len(found), split
    for one, other in combinations(SPLITS, 2):
        assert not set(sentences[one]) & set(sentences[other])
    words = {split: set(re.findall(r"\w+", " ".join(sentences[split]))) for split in SPLITS}
    unknown = (words["validation"] | words["test"]) - words["train"]
    # The training data has only the stem and the ending of a few French verb forms, such as nous
    # achèterons.
    assert len(unknown) <= (3 if side == 0 else 0), unknown
