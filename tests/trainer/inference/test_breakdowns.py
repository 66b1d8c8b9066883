"""By length and by rare words, compared with counting by hand."""

import pytest
from support.recipes import tiny_recipe

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.errors import DatasetError
from trainer.inference import breakdowns
from trainer.inference.breakdowns import (
    FREQUENCIES,
    LENGTHS,
    Frequencies,
    by_frequency,
    by_length,
    frequencies_of,
    training_frequencies,
)


def test_every_sentence_is_in_one_bucket_of_lengths():
    sources = ["", "w", "w " * 10, "w " * 11, "w " * 60, "w " * 61, "w " * 900]
    found = {str(bucket): numbers for bucket, numbers in by_length(sources)}
    assert found == {"1 to 10": [0, 1, 2], "11 to 20": [3], "51 to 60": [4], "61 and more": [5, 6]}
    assert str(LENGTHS[-1]) == "61 and more"


def test_words_are_counted_by_how_often_training_has_them():
    frequencies = Frequencies({"the": 5000, "cat": 7, "dog": 7}, "a text")
    references = ["the cat the quokka", "the dog"]
    systems = [["the cat cat the", "the cat"], ["quokka", "the dog"], ["", ""]]
    found = {str(row.bucket): row for row in by_frequency(references, systems, frequencies)}
    assert list(found) == ["0", "5 to 9", "1,000 and more"]
    # Of 3 in the references: all, with 3 made; 1, with 1 made; none.
    assert found["1,000 and more"].words == 3
    assert found["1,000 and more"].f1 == pytest.approx([100, 100 * 2 * 1 / (3 + 1), 0])
    # "cat" and "dog" are expected; made are three cats, one of them rightly.
    assert found["5 to 9"].f1 == pytest.approx([100 * 2 * 1 / (2 + 3), 100 * 2 * 1 / (2 + 1), 0])
    assert found["0"].f1 == pytest.approx([0, 100, 0])


def test_words_are_tokens_with_their_case():
    frequencies = Frequencies({"Cat": 1, "cat": 10}, "a text")
    rows = by_frequency(["Cat, cat."], [["cat."]], frequencies)
    assert {str(row.bucket): (row.words, row.f1) for row in rows} == {
        "0": (2, [pytest.approx(200 / 3)]),  # the comma and the full stop
        "1 to 4": (1, [0]),
        "10 to 99": (1, [100]),
    }


def test_training_data_is_counted_whole_or_evenly(phrasebook, monkeypatch):
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    reports = []
    whole = training_frequencies(store, manifest, lambda *report: reports.append(report))
    assert whole.counted_in == f"the target sentences of {manifest.pairs:,} training pairs"
    assert reports[-1] == (manifest.pairs, manifest.pairs)
    assert whole.words["the"] > 50
    monkeypatch.setattr(breakdowns, "PAIRS_COUNTED", manifest.pairs // 2)
    half = training_frequencies(store, manifest, lambda *report: None)
    assert f"of {manifest.pairs:,}, in shards that lie evenly" in half.counted_in
    assert 0 < half.words["the"] < whole.words["the"]


def test_without_training_data_references_are_counted_and_that_is_said(phrasebook, monkeypatch):
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    references = load_heldout(store, manifest, "phrasebook").texts["tgt"]

    def read(*_):
        raise DatasetError("The shard is lost.")

    monkeypatch.setattr(store, "read", read)
    found = frequencies_of(store, manifest, references, lambda *report: None)
    assert found.counted_in == (
        "the references, as the training data is not read: The shard is lost"
    )
    assert sum(found.words.values()) > len(references)
    assert FREQUENCIES[0].first == 0
