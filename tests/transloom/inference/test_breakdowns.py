"""Scores by sentence length and by word frequency, compared with counts made by hand."""

from collections import Counter

import pytest
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from support.recipes import tiny_recipe

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.dataset.manifest_header import Tombstone
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.errors import DatasetError
from transloom.inference import breakdowns
from transloom.inference.breakdowns import (
    FREQUENCIES,
    LENGTHS,
    Frequencies,
    by_frequency,
    by_length,
    frequencies_of,
    training_frequencies,
)


def test_every_sentence_is_in_one_length_bucket():
    sources = ["", "w", "w " * 10, "w " * 11, "w " * 60, "w " * 61, "w " * 900]
    found = {str(bucket): numbers for bucket, numbers in by_length(sources)}
    assert found == {"1 to 10": [0, 1, 2], "11 to 20": [3], "51 to 60": [4], "61 and more": [5, 6]}
    assert str(LENGTHS[-1]) == "61 and more"


def test_words_are_grouped_by_their_frequency_in_the_training_data():
    frequencies = Frequencies({"the": 5000, "cat": 7, "dog": 7}, "a text")
    references = ["the cat the quokka", "the dog"]
    systems = [["the cat cat the", "the cat"], ["quokka", "the dog"], ["", ""]]
    found = {str(row.bucket): row for row in by_frequency(references, systems, frequencies)}
    assert list(found) == ["0", "5 to 9", "1,000 and more"]
    # "the" is 3 times in the references; the systems wrote it 3, 1 and 0 times.
    assert found["1,000 and more"].words == 3
    assert found["1,000 and more"].f1 == pytest.approx([100, 100 * 2 * 1 / (3 + 1), 0])
    # The references have "cat" and "dog"; of the first system's three "cat", one is right.
    assert found["5 to 9"].f1 == pytest.approx([100 * 2 * 1 / (2 + 3), 100 * 2 * 1 / (2 + 1), 0])
    assert found["0"].f1 == pytest.approx([0, 100, 0])


def test_words_are_case_sensitive_tokens():
    frequencies = Frequencies({"Cat": 1, "cat": 10}, "a text")
    rows = by_frequency(["Cat, cat."], [["cat."]], frequencies)
    assert {str(row.bucket): (row.words, row.f1) for row in rows} == {
        "0": (2, [pytest.approx(200 / 3)]),  # the comma and the full stop
        "1 to 4": (1, [0]),
        "10 to 99": (1, [100]),
    }


def test_words_of_large_training_data_are_counted_in_evenly_spaced_shards(phrasebook, monkeypatch):
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    reports = []
    whole = training_frequencies(store, manifest, lambda *report: reports.append(report))
    assert whole.counted_in == f"the target sentences of {manifest.pairs:,} training pairs"
    assert reports[-1] == (manifest.pairs, manifest.pairs)
    assert whole.words["the"] > 50
    monkeypatch.setattr(breakdowns, "PAIRS_COUNTED", manifest.pairs // 2)
    half = training_frequencies(store, manifest, lambda *report: None)
    assert f"out of {manifest.pairs:,}, from evenly spaced shards" in half.counted_in
    assert 0 < half.words["the"] < whole.words["the"]


def test_every_frequency_is_in_one_frequency_bucket():
    bounds = {0: "0", 1: "1 to 4", 4: "1 to 4", 5: "5 to 9", 9: "5 to 9", 10: "10 to 99"}
    bounds |= {99: "10 to 99", 100: "100 to 999", 999: "100 to 999", 1000: "1,000 and more"}
    for frequency, bucket in bounds.items():
        frequencies = Frequencies({"word": frequency}, "a text")
        (row,) = by_frequency(["word"], [["word"]], frequencies)
        assert (str(row.bucket), row.words, row.f1) == (bucket, 1, [100])


def test_f1_is_0_for_systems_that_write_a_word_of_no_reference():
    frequencies = Frequencies({"cat": 7}, "a text")
    (other, made_up) = by_frequency(["dog"], [["cat"], ["dog"]], frequencies)
    assert (str(other.bucket), other.words, other.f1) == ("0", 1, [0, 100])
    assert (str(made_up.bucket), made_up.words, made_up.f1) == ("5 to 9", 0, [0, None])


def test_training_words_are_counted_in_all_shards_without_a_tombstone(phrasebook):
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    words = {}
    for shard in manifest.shards:
        blocks = unpack_shard(store.read(shard.name, shard.sha256, shard.bytes), shard)
        texts = [text for block in blocks for text in block.sentences("tgt")]
        words[shard.name] = Counter(word for text in texts for word in Tokenizer13a()(text).split())
    reports = []
    found = training_frequencies(store, manifest, lambda *report: reports.append(report))
    assert found.words == sum(words.values(), Counter())
    assert reports[0] == (0, manifest.pairs)
    assert len(reports) == len(manifest.shards) + 1 > 2
    lost = manifest.shards[0]
    tombstone = Tombstone(shard=lost.name, reason="it is damaged", parent="0" * 64)
    fewer = manifest.model_copy(update={"tombstones": (tombstone,)})
    found = training_frequencies(store, fewer, lambda *report: None)
    assert found.words == sum(words.values(), Counter()) - words[lost.name]
    assert f"{manifest.pairs - lost.pairs:,} training pairs" in found.counted_in


def test_words_of_references_are_counted_if_training_data_is_unreadable(phrasebook, monkeypatch):
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    references = load_heldout(store, manifest, "phrasebook").texts["tgt"]

    def read(*_):
        raise DatasetError("The shard is lost.")

    monkeypatch.setattr(store, "read", read)
    found = frequencies_of(store, manifest, references, lambda *report: None)
    assert found.counted_in == (
        "the references, because the training data cannot be read: The shard is lost"
    )
    assert sum(found.words.values()) > len(references)
    assert FREQUENCIES[0].first == 0
