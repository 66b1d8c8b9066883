"""Windows of real datasets, compared with their text and between readers, and damaged shards."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.data_settings import settings_of

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import DataSettings, TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import BatchingError, DatasetError, DatasetFileError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import load_tokenizers

MakeSettings = Callable[..., DataSettings]
ReadPairs = Callable[[Path], list[tuple[str, str]]]
PLENTY = 10**9


def open_reader(
    dataset: Path, settings: DataSettings, cache_bytes: int = PLENTY, retries: int = 0
) -> WindowReader:
    store = open_store(dataset, retry_delays_seconds=(0.0,) * retries)
    return WindowReader(store, Manifest.load(store), settings, cache_bytes)


def micro_batches(reader: WindowReader, epoch: int) -> Iterator[MicroBatch]:
    for window in range(reader.layout(epoch, 0).windows_per_epoch):
        count = len(reader.layout(epoch, window).units)
        yield from reader.fetch(epoch, window, 0, count)


def digest(reader: WindowReader, epoch: int, window: int) -> str:
    """Return the digest of all arrays of a window."""
    layout = reader.layout(epoch, window)
    parts = [layout.units, layout.bytes]
    for micro_batch in reader.fetch(epoch, window, 0, len(layout.units)):
        parts.append(micro_batch.pair_ids)
        for field in micro_batch.fields.values():
            parts += [field.ids, field.lengths]
    return hashlib.sha256(b"|".join(part.tobytes() for part in parts)).hexdigest()


@pytest.fixture
def reader(dataset: Path, data_settings: MakeSettings) -> WindowReader:
    return open_reader(dataset, data_settings(dataset))


@pytest.fixture(scope="module")
def mixed_data(
    tmp_path_factory: pytest.TempPathFactory,
    data_config: Callable[..., PairDataConfig],
    tokenizer_config: TokenizerConfig,
    corpus_folder: Path,
) -> PairDataConfig:
    """Return settings of three corpora with 500, 40 and 30 pairs and shares of 1/2, 1/4 and 1/4."""
    dataset = tmp_path_factory.mktemp("mixed") / "d"
    train = [
        {"source": str(corpus_folder / f"{name}.src"), "target": str(corpus_folder / f"{name}.tgt")}
        | extra
        for name, extra in (
            ("train", {"weight": 2}),
            ("validation", {"weight": 1, "tag": "<bt>"}),
            ("test", {"weight": 1, "name": "news"}),
        )
    ]
    data = data_config(dataset, train=train, pairs_per_block=8, blocks_per_shard=2)
    prepare(settings_of(data, tokenizer_config), lambda progress: None)
    return data


def test_a_layout_has_the_tokens_and_bytes_of_the_fetched_batches(reader: WindowReader) -> None:
    for window in range(3):
        layout = reader.layout(0, window)
        fetched = reader.fetch(0, window, 0, len(layout.units))
        assert layout.windows_per_epoch == 3
        assert layout.units.tolist() == [batch.tokens("tgt") for batch in fetched]
        assert layout.bytes.tolist() == [batch.bytes for batch in fetched]


def test_every_pair_has_the_tokens_of_its_sentences(
    reader: WindowReader, dataset: Path, manifest: Manifest, read_pairs: ReadPairs
) -> None:
    tokenizers = load_tokenizers(open_store(dataset), manifest)
    pairs = read_pairs(dataset)
    seen = []
    for micro_batch in micro_batches(reader, epoch=1):
        seen += micro_batch.pair_ids.tolist()
        for side, (name, field) in enumerate(micro_batch.fields.items()):
            sentences = [pairs[pair][side] for pair in micro_batch.pair_ids]
            expected = tokenizers[name].encode_field(sentences)
            assert np.array_equal(field.ids, expected.ids)
            assert np.array_equal(field.lengths, expected.lengths)
            assert len(field.lengths) * field.lengths.max() <= 300
    assert sorted(seen) == list(range(manifest.pairs))


def test_different_seeds_and_epochs_read_different_pairs(
    reader: WindowReader, dataset: Path, data_settings: MakeSettings
) -> None:
    other = open_reader(dataset, data_settings(dataset, seed=6))
    first = reader.fetch(0, 0, 0, 1)[0].pair_ids.tolist()
    assert first != other.fetch(0, 0, 0, 1)[0].pair_ids.tolist()
    assert first != reader.fetch(1, 0, 0, 1)[0].pair_ids.tolist()


@pytest.mark.parametrize("mixed", [False, True])
def test_a_window_depends_neither_on_the_cache_nor_on_earlier_requests(
    dataset: Path, mixed_data: PairDataConfig, data_settings: MakeSettings, mixed: bool
) -> None:
    path = Path(mixed_data.dataset) if mixed else dataset
    settings = data_settings(path, data=mixed_data if mixed else None)
    readers = [open_reader(path, settings, cache_bytes) for cache_bytes in (0, 20_000, PLENTY)]
    asked = [(4, 2), (0, 1), (4, 2), (1, 0), (2, 0), (3, 0), (4, 2), (0, 1)]
    for epoch, window in asked:
        fresh = open_reader(path, settings)
        assert {digest(reader, epoch, window) for reader in (*readers, fresh)} == {
            digest(fresh, epoch, window)
        }
    assert [reader.windows_read for reader in readers][::2] == [len(asked), len(set(asked))]


def test_the_cache_keeps_the_newest_windows_within_its_bytes(
    reader: WindowReader, dataset: Path, data_settings: MakeSettings
) -> None:
    sizes = [int(reader.layout(0, window).bytes.sum()) for window in range(3)]
    two = open_reader(dataset, data_settings(dataset), cache_bytes=sum(sizes) - 1)
    reads = []
    for window in (0, 1, 2, 1, 2, 1, 0, 1, 2):
        two.layout(0, window)
        two.fetch(0, window, 0, 1)
        reads.append(two.windows_read)
    # Two windows fit. The cache drops the one that was used least recently: first 0 for 2, later 2
    # for 0, and at last 0 for 2.
    assert reads == [1, 2, 3, 3, 3, 3, 4, 4, 5]


def test_a_mixture_has_the_shares_of_its_weights(
    mixed_data: PairDataConfig, data_settings: MakeSettings
) -> None:
    dataset = Path(mixed_data.dataset)
    reader = open_reader(dataset, data_settings(dataset, data=mixed_data))
    manifest = reader.manifest
    assert [corpus.kept for corpus in manifest.corpora] == [500, 40, 30]
    tag_id = load_tokenizers(open_store(dataset), manifest)["src"].tag_id("<bt>")
    shards = manifest.shards
    corpus_of = np.repeat([s.corpus for s in shards], [s.pairs for s in shards])
    counts = np.zeros((2, manifest.pairs), dtype=np.int64)
    for epoch in range(2):
        for micro_batch in micro_batches(reader, epoch):
            np.add.at(counts[epoch], micro_batch.pair_ids, 1)
            source = micro_batch.fields["src"]
            first = source.ids[np.cumsum(source.lengths) - source.lengths]
            tagged = corpus_of[micro_batch.pair_ids] == 1
            assert np.array_equal(first == tag_id, tagged)
        assert np.bincount(corpus_of, counts[epoch]).tolist() == [285, 142, 142]
    # Each pair of a corpus is read as often as any other, to within one pass.
    for corpus in range(3):
        often = counts.sum(axis=0)[corpus_of == corpus]
        assert often.max() - often.min() <= 1


def test_a_recipe_with_other_corpora_is_refused(dataset: Path, data_settings: MakeSettings) -> None:
    settings = data_settings(dataset)
    train = (settings.data.train[0].model_copy(update={"name": "news"}),)
    other = settings.data.model_copy(update={"train": train})
    with pytest.raises(DatasetError, match="has the corpora train, but the recipe has news"):
        open_reader(dataset, data_settings(dataset, data=other))


def test_a_budget_below_the_longest_pair_is_refused_at_once(
    dataset: Path, data_settings: MakeSettings
) -> None:
    with pytest.raises(BatchingError):
        open_reader(dataset, data_settings(dataset, max_tokens_per_micro_batch=10))


def test_a_window_that_does_not_exist_is_refused(reader: WindowReader) -> None:
    with pytest.raises(BatchingError):
        reader.layout(0, 3)


def test_a_damaged_shard_fails_only_its_windows_after_retries(
    dataset: Path, manifest: Manifest, data_settings: MakeSettings, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    damaged = manifest.shards[4]
    (copy / damaged.name).write_bytes(b"other")
    intact = open_reader(dataset, data_settings(dataset))
    reader = open_reader(copy, data_settings(dataset), retries=2)
    for window in range(3):
        count = len(intact.layout(0, window).units)
        fetched = intact.fetch(0, window, 0, count)
        if any(damaged.first_pair in micro_batch.pair_ids for micro_batch in fetched):
            with pytest.raises(DatasetFileError) as caught:
                reader.layout(0, window)
            assert (caught.value.file, caught.value.found) == (damaged.name, "5 bytes")
        else:
            assert digest(reader, 0, window) == digest(intact, 0, window)
    assert reader.windows_read == 2
