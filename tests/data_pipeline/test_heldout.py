"""Held-out sets: the text of the corpus, in batches that depend on nothing but lengths."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import CorpusConfig
from data_pipeline.corpus import read_corpus
from data_pipeline.errors import DatasetError
from data_pipeline.heldout import heldout_micro_batches, load_heldout, plan_heldout
from data_pipeline.manifest import Manifest
from data_pipeline.tokenizer import load_tokenizers


@pytest.mark.parametrize(("name", "file"), [("validation", "validation"), ("small", "test")])
def test_it_is_the_text_of_the_corpus(
    dataset: Path, manifest: Manifest, corpus: Callable[[str], CorpusConfig], name: str, file: str
) -> None:
    heldout = load_heldout(dataset, manifest, name)
    text = read_corpus(corpus(file), None)
    assert (heldout.sources, heldout.targets) == (text.sources, text.targets)


def test_unknown_set_lists_the_known(dataset: Path, manifest: Manifest) -> None:
    with pytest.raises(DatasetError, match="no held-out set 'wmt'; it has validation, small"):
        load_heldout(dataset, manifest, "wmt")


def test_changed_text_is_refused(dataset: Path, manifest: Manifest, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    with (copy / "heldout" / "small.tgt.txt").open("a") as file:
        file.write("more\n")
    with pytest.raises(DatasetError, match=r"small\.tgt\.txt is damaged"):
        load_heldout(copy, manifest, "small")


def test_plan_has_each_pair_once_shortest_first() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, (100, 2))
    lengths[17] = 500  # over the budget, and kept all the same
    plan = plan_heldout(lengths, budget=120)
    assert sorted(plan.order.tolist()) == list(range(100))
    batches = np.split(plan.order, plan.bounds[1:-1])
    assert batches[-1].tolist() == [17]
    longest = [lengths[batch].max() for batch in batches]
    assert longest == sorted(longest)
    assert all(len(batch) * most <= 120 for batch, most in zip(batches[:-1], longest, strict=False))


def test_micro_batches_hold_every_line(dataset: Path, manifest: Manifest) -> None:
    heldout = load_heldout(dataset, manifest, "validation")
    tokenizers = load_tokenizers(dataset, manifest)
    seen = []
    for micro_batch in heldout_micro_batches(heldout, tokenizers, budget=100):
        lines = [heldout.targets[line] for line in micro_batch.pair_ids]
        expected = tokenizers["tgt"].encode_field(lines)
        assert np.array_equal(micro_batch.fields["tgt"].ids, expected.ids)
        seen += micro_batch.pair_ids.tolist()
    assert sorted(seen) == list(range(40))
