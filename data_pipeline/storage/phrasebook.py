"""The built-in phrase book: French sentences with their English translations, without a download.

The sentences were generated from a grammar, and never change. Half of the test set are sentences
with combinations of words that do not occur in the training set: a person and a profession, a thing
and a colour, or a verb, its tense and a negation.
"""

import bz2
from functools import cache
from pathlib import Path

from data_pipeline.errors import CorpusError

Pair = tuple[str, str]  # French, English
SPLITS = ("train", "validation", "test")
FILE = Path(__file__).with_name("phrasebook.tsv.bz2")  # columns: split, French, English


def phrasebook_pairs(split: str) -> list[Pair]:
    """Return the (French, English) pairs of a split: train, validation or test.

    No sentence of either language is in two splits.

    Raises:
        CorpusError: there is no such split.
    """
    if split not in SPLITS:
        raise CorpusError(
            f"The built-in phrase book has no part named '{split}'. Name one of its parts: "
            f"{', '.join(SPLITS)}."
        )
    return list(_book()[split])


@cache
def _book() -> dict[str, list[Pair]]:
    book: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for line in bz2.decompress(FILE.read_bytes()).decode("utf-8").split("\n"):
        split, french, english = line.split("\t")
        book[split].append((french, english))
    return book
