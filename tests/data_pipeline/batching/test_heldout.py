"""Held-out sets: the text of the corpus, in batches that depend only on lengths."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.data_settings import settings_of

from data_pipeline.batching.heldout import (
    TEXTS_COUNTED_AT_ONCE,
    check_heldout,
    load_heldout,
)
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import DatasetError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.store import open_store
from data_pipeline.tasks.translation import heldout_pairs, pair_micro_batches, plan_heldout
from data_pipeline.tokenizers.tokenizer import load_tokenizers


@pytest.mark.parametrize(("name", "file"), [("validation", "validation"), ("small", "test")])
def test_a_heldout_set_has_the_text_of_its_corpus(
    dataset: Path, manifest: Manifest, corpus_folder: Path, name: str, file: str
) -> None:
    heldout = load_heldout(open_store(dataset), manifest, name)
    sources, targets = (
        (corpus_folder / (file + suffix)).read_text().splitlines() for suffix in (".src", ".tgt")
    )
    assert heldout == heldout_pairs(sources, targets)


def test_empty_sentences_and_odd_line_ends_keep_their_line(
    data_config: Callable[..., PairDataConfig], tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes("one\n\n\u2028\x0b\r\nfour".encode())
    (tmp_path / "b").write_bytes(b"\neins\tzwei\n\n\n")
    validation = {"source": str(tmp_path / "a"), "target": str(tmp_path / "b")}
    data = data_config(tmp_path / "d", validation=validation)
    manifest = prepare(settings_of(data, tokenizer_config), lambda progress: None)
    heldout = load_heldout(open_store(tmp_path / "d"), manifest, "validation")
    assert heldout.texts["src"] == ["one", "", "\u2028\x0b", "four"]
    assert heldout.texts["tgt"] == ["", "eins\tzwei", "", ""]


def test_an_unknown_set_is_refused_with_the_known_sets(dataset: Path, manifest: Manifest) -> None:
    with pytest.raises(DatasetError, match="no held-out set 'wmt'; it has validation, small"):
        load_heldout(open_store(dataset), manifest, "wmt")


def test_changed_heldout_text_is_refused(dataset: Path, manifest: Manifest, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    with (copy / "heldout" / "small.tgt.txt").open("a") as file:
        file.write("more\n")
    store = open_store(copy, retry_delays_seconds=())
    with pytest.raises(DatasetError, match=r"small\.tgt\.txt .*expected sha256 .*found sha256"):
        load_heldout(store, manifest, "small")


@pytest.mark.parametrize("line", [TEXTS_COUNTED_AT_ONCE, TEXTS_COUNTED_AT_ONCE + 1, 2345])
def test_a_too_long_heldout_sentence_is_reported_with_its_line(
    dataset: Path, manifest: Manifest, data_config, tokenizer_config, line: int
) -> None:
    targets = ["a"] * 2400
    targets[line - 1] = "badefi " * 700  # more than 1,024 tokens
    heldout = heldout_pairs(["a"] * len(targets), targets)
    settings = settings_of(data_config(dataset), tokenizer_config)
    tokenizers = load_tokenizers(open_store(dataset), manifest)
    with pytest.raises(
        DatasetError, match=rf"set long of .*, line {line:,} of tgt: .* [\d,]+ tokens"
    ):
        check_heldout(heldout, "long", settings, tokenizers, str(dataset))


def test_a_heldout_plan_has_each_pair_once_and_the_shortest_first() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, (100, 2))
    lengths[17] = 500  # over the budget, but kept
    plan = plan_heldout(lengths, budget=120)
    assert sorted(plan.order.tolist()) == list(range(100))
    batches = np.split(plan.order, plan.bounds[1:-1])
    assert batches[-1].tolist() == [17]
    longest = [lengths[batch].max() for batch in batches]
    assert longest == sorted(longest)
    assert all(len(batch) * most <= 120 for batch, most in zip(batches[:-1], longest, strict=False))


def test_heldout_micro_batches_contain_every_line(dataset: Path, manifest: Manifest) -> None:
    heldout = load_heldout(open_store(dataset), manifest, "validation")
    tokenizers = load_tokenizers(open_store(dataset), manifest)
    seen = []
    for micro_batch in pair_micro_batches(heldout, tokenizers, budget=100):
        lines = [heldout.texts["tgt"][line] for line in micro_batch.pair_ids]
        expected = tokenizers["tgt"].encode_field(lines)
        assert np.array_equal(micro_batch.fields["tgt"].ids, expected.ids)
        seen += micro_batch.pair_ids.tolist()
    assert sorted(seen) == list(range(40))


def test_the_tag_of_a_heldout_set_precedes_every_source_sentence(
    data_config: Callable[..., PairDataConfig],
    tokenizer_config: TokenizerConfig,
    corpus_folder: Path,
    tmp_path: Path,
) -> None:
    """The tokenizer also has a piece for a tag that only a held-out set uses."""
    small = {
        "source": str(corpus_folder / "test.src"),
        "target": str(corpus_folder / "test.tgt"),
        "tag": "<2yy>",
    }
    data = data_config(tmp_path / "d", tests={"small": small})
    manifest = prepare(settings_of(data, tokenizer_config), lambda progress: None)
    store = open_store(tmp_path / "d")
    tokenizers = load_tokenizers(store, manifest)
    tag_id = tokenizers["src"].tag_id("<2yy>")
    tagged, untagged = (
        pair_micro_batches(load_heldout(store, manifest, name), tokenizers, budget=200)
        for name in ("small", "validation")
    )
    for micro_batch in tagged:
        source = micro_batch.fields["src"]
        starts = np.cumsum(source.lengths) - source.lengths
        assert (source.ids[starts] == tag_id).all()
        assert np.count_nonzero(source.ids == tag_id) == len(starts)
        assert tag_id not in micro_batch.fields["tgt"].ids
    assert all(tag_id not in micro_batch.fields["src"].ids for micro_batch in untagged)
