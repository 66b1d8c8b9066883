"""Windows of a real dataset: against its text, against other readers, and when damaged."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.batch import MicroBatch
from data_pipeline.config import BatchingConfig
from data_pipeline.errors import BatchingError, DatasetFileError
from data_pipeline.manifest import Manifest
from data_pipeline.shards import read_shard
from data_pipeline.tokenizer import load_tokenizers
from data_pipeline.window import WindowReader

BATCHING = BatchingConfig(max_tokens_per_micro_batch=300, micro_batches_per_step=4, window_shards=3)


@pytest.fixture
def reader(dataset: Path) -> WindowReader:
    return WindowReader(dataset, BATCHING, seed=5)


def micro_batches(reader: WindowReader, epoch: int) -> Iterator[MicroBatch]:
    for window in range(reader.layout(epoch, 0).windows_per_epoch):
        count = len(reader.layout(epoch, window).target_tokens)
        yield from reader.fetch(epoch, window, 0, count)


def test_layout_counts_the_target_tokens_of_what_is_fetched(reader: WindowReader) -> None:
    for window in range(3):
        layout = reader.layout(0, window)
        fetched = reader.fetch(0, window, 0, len(layout.target_tokens))
        assert layout.windows_per_epoch == 3
        assert layout.target_tokens.tolist() == [batch.tokens("tgt") for batch in fetched]


def test_every_pair_has_the_pieces_of_its_sentence(
    reader: WindowReader, dataset: Path, manifest: Manifest
) -> None:
    tokenizers = load_tokenizers(dataset, manifest)
    blocks = [block for shard in manifest.shards for block in read_shard(dataset, shard)]
    seen = []
    for micro_batch in micro_batches(reader, epoch=1):
        seen += micro_batch.pair_ids.tolist()
        for name, field in micro_batch.fields.items():
            text = [line for block in blocks for line in block.sentences(name)]
            expected = tokenizers[name].encode_field([text[pair] for pair in micro_batch.pair_ids])
            assert np.array_equal(field.ids, expected.ids)
            assert np.array_equal(field.lengths, expected.lengths)
    assert sorted(seen) == list(range(manifest.pairs))


def test_answers_do_not_depend_on_what_was_asked_before(
    reader: WindowReader, dataset: Path
) -> None:
    for epoch, window in ((4, 2), (0, 1), (4, 2), (1, 0), (2, 0), (3, 0), (4, 2)):
        fresh = WindowReader(dataset, BATCHING, seed=5, cached_windows=1)
        for ours, theirs in zip(
            reader.fetch(epoch, window, 1, 4), fresh.fetch(epoch, window, 1, 4), strict=True
        ):
            assert np.array_equal(ours.pair_ids, theirs.pair_ids)
            assert np.array_equal(ours.fields["src"].ids, theirs.fields["src"].ids)


def test_seeds_and_epochs_differ(reader: WindowReader, dataset: Path) -> None:
    other = WindowReader(dataset, BATCHING, seed=6)
    first = reader.fetch(0, 0, 0, 1)[0].pair_ids.tolist()
    assert first != other.fetch(0, 0, 0, 1)[0].pair_ids.tolist()
    assert first != reader.fetch(1, 0, 0, 1)[0].pair_ids.tolist()


def test_budget_that_the_longest_pair_exceeds_is_refused_at_once(dataset: Path) -> None:
    tight = BATCHING.model_copy(update={"max_tokens_per_micro_batch": 10})
    with pytest.raises(BatchingError, match="at most 10"):
        WindowReader(dataset, tight, seed=0)


def test_window_that_does_not_exist(reader: WindowReader) -> None:
    with pytest.raises(BatchingError, match="Window 3 was asked for"):
        reader.layout(0, 3)


def test_damaged_shard_stops_after_retries(
    dataset: Path, manifest: Manifest, tmp_path: Path
) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    for shard in manifest.shards:
        (copy / shard.name).write_bytes(b"other")
    reader = WindowReader(copy, BATCHING, seed=5, retry_delays_seconds=(0.0, 0.0))
    assert len(reader.layout(0, 0).target_tokens) > 0
    with pytest.raises(DatasetFileError, match="found 5 bytes"):
        reader.fetch(0, 0, 0, 1)


def test_shard_that_comes_back_is_read(
    dataset: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    shutil.move(copy / "shards", copy / "away")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            shutil.move(copy / "away", copy / "shards")

    monkeypatch.setattr("data_pipeline.window.time.sleep", sleep)
    reader = WindowReader(copy, BATCHING, seed=5, retry_delays_seconds=(1.0, 2.0, 4.0))
    assert len(reader.fetch(0, 0, 0, 1)) == 1
    assert slept == [1.0, 2.0]


def test_shard_that_disagrees_with_the_lengths_is_refused(
    reader: WindowReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_lengths", reader._lengths[::-1])
    with pytest.raises(DatasetFileError, match=r"lengths of src that lengths\.npy has"):
        reader.fetch(0, 0, 0, 1)
