"""Windows: slices of shards that are read, verified and cut into micro-batches.

    (epoch, window) ──mixture──▶ slices ──store──▶ shards, verified ──▶ sequences
        ──realise, if the task needs it──▶ sequences ──plan──▶ micro-batches

`WindowReader` maps coordinates, which are an epoch and a window, to micro-batches. Its only state
is a cache: every process returns the same micro-batches for the same coordinates. If a data worker
is lost, another process can therefore repeat its requests.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, concatenate
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.mixture import Mixture, ShardSlice, shares_of
from data_pipeline.batching.task import DATA_TASKS, Examples, rules_by_corpus
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import ShardInfo
from data_pipeline.dataset.sequences import check_sequences
from data_pipeline.dataset.shards import ShardBlock, unpack_shard
from data_pipeline.dataset.texts import unpack_texts
from data_pipeline.errors import DatasetError
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers

MEGABYTE = 1_000_000
DEFAULT_CACHE_BYTES = 512 * MEGABYTE


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """Sizes of a window's micro-batches, which are needed to plan steps."""

    windows_per_epoch: int
    units: Int64Array  # [micro-batches], see `DataTask.units`
    bytes: Int64Array  # [micro-batches], total size of a micro-batch's arrays


@dataclass(frozen=True, eq=False)
class _Window:
    layout: WindowLayout
    micro_batches: list[MicroBatch]


class WindowReader:
    """Reader of the windows of one dataset under one recipe.

    `layout` and `fetch` raise DatasetFileError if a shard is damaged or cannot be read after
    retries.
    """

    def __init__(
        self,
        store: DatasetStore,
        manifest: Manifest,
        settings: DataSettings,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """Open the mixture; shards are read later.

        Args:
            cache_bytes: maximum bytes of cached arrays; the least recently used windows are evicted
                first, and the newest is always kept.

        Raises:
            DatasetError, BatchingError: see `open_mixture`.
        """
        self.manifest = manifest
        self.windows_read = 0
        self._store = store
        self._settings = settings
        self._cache_bytes = cache_bytes
        self._windows: OrderedDict[tuple[int, int], _Window] = OrderedDict()
        self._task = DATA_TASKS[settings.task]
        self._texts_read = self._task.texts_read(settings)
        self._realises = self._task.realises(settings)
        self._rules = rules_by_corpus(self.manifest)
        self._checked: set[int] = set()  # shards that were checked against the rules
        self._left_out = self.manifest.left_out
        self._mixture = open_mixture(self.manifest, settings)

    def layout(self, epoch: int, window: int) -> WindowLayout:
        """Return the layout of a window, and cache its micro-batches for `fetch`."""
        return self._window(epoch, window).layout

    def fetch(self, epoch: int, window: int, start: int, stop: int) -> list[MicroBatch]:
        """Return the micro-batches `start` to `stop` (exclusive) of a window."""
        micro_batches = self._window(epoch, window).micro_batches
        assert 0 <= start <= stop <= len(micro_batches), "coordinates come from the layout"
        return micro_batches[start:stop]

    def _window(self, epoch: int, window: int) -> _Window:
        key = (epoch, window)
        if key in self._windows:
            self._windows.move_to_end(key)
        else:
            self._windows[key] = self._read(epoch, window)
            self.windows_read += 1
            while len(self._windows) > 1 and self._cached_bytes() > self._cache_bytes:
                self._windows.popitem(last=False)
        return self._windows[key]

    def _cached_bytes(self) -> int:
        return sum(int(window.layout.bytes.sum()) for window in self._windows.values())

    def _read(self, epoch: int, window: int) -> _Window:
        slices = [
            part
            for part in self._mixture.slices(epoch, window)
            if self.manifest.shards.name(part.shard) not in self._left_out
        ]
        if not slices:
            return _Window(self._layout_of([]), [])
        parts: dict[str, list[FieldArrays]] = {}
        shards = [self.manifest.shards[part.shard] for part in slices]
        contents = self._store.read_many([(s.name, s.sha256, s.bytes) for s in shards])
        for part, shard, data in zip(slices, shards, contents, strict=True):
            for name, arrays in self._read_slice(part, shard, data).items():
                parts.setdefault(name, []).extend(arrays)
        fields = {name: concatenate(arrays) for name, arrays in parts.items()}
        plan = self._task.plan(fields, self._settings, epoch, window)
        micro_batches = assemble(_pair_ids(self.manifest, slices), fields, plan)
        return _Window(self._layout_of(micro_batches), micro_batches)

    def _layout_of(self, micro_batches: list[MicroBatch]) -> WindowLayout:
        return WindowLayout(
            windows_per_epoch=self._mixture.windows_per_epoch,
            units=np.array([self._task.units(batch) for batch in micro_batches], dtype=np.int64),
            bytes=np.array([batch.bytes for batch in micro_batches], dtype=np.int64),
        )

    def _read_slice(
        self, part: ShardSlice, shard: ShardInfo, data: bytes
    ) -> dict[str, list[FieldArrays]]:
        """Return, by field, the sequences of a slice in this pass, as one or several arrays.

        The fields are those of the dataset, or the fields that the task derives from them.
        """
        blocks = unpack_shard(data, shard, texts=bool(self._texts_read))
        if part.shard not in self._checked:  # check a shard once: its sha256 fixes its content
            for block in blocks:
                check_sequences(shard.name, block, self._rules[shard.corpus])
            self._checked.add(part.shard)
        fields: dict[str, list[FieldArrays]] = {f.name: [] for f in self.manifest.fields}
        first = 0
        for block in blocks:
            start, stop = max(part.start - first, 0), min(part.stop - first, block.pairs)
            if start < stop:
                for name, arrays in block.fields.items():
                    fields[name].append(arrays.part(start, stop))
            first += block.pairs
        if not self._realises:
            return fields
        realised = self._task.realise(
            self._examples(part, blocks, fields), self._settings, self._tokenizers
        )
        return {name: [arrays] for name, arrays in realised.items()}

    def _examples(
        self, part: ShardSlice, blocks: list[ShardBlock], fields: dict[str, list[FieldArrays]]
    ) -> Examples:
        shard = self.manifest.shards[part.shard]
        texts = {
            field.name: [
                text
                for block in blocks
                for text in unpack_texts(
                    shard.name, block.texts[field.name], field, f"{block.key}.{field.name}.txt"
                )
            ]
            for field in self.manifest.fields
            if field.name in self._texts_read
        }
        return Examples(
            numbers=np.arange(shard.first_pair + part.start, shard.first_pair + part.stop),
            pass_number=part.pass_number,
            corpus=self.manifest.corpora[shard.corpus],
            fields={name: concatenate(arrays) for name, arrays in fields.items()},
            texts={name: lines[part.start : part.stop] for name, lines in texts.items()},
        )

    @cached_property
    def _tokenizers(self) -> dict[str, Tokenizer]:
        return load_tokenizers(self._store, self.manifest)


def open_mixture(manifest: Manifest, settings: DataSettings) -> Mixture:
    """Return the mixture of a dataset's corpora under a recipe.

    Raises:
        DatasetError: the dataset's corpora differ from the recipe's, or all shards of a corpus are
            quarantined.
        BatchingError: an example does not fit into a micro-batch, or a corpus's share is too small.
    """
    names = tuple(corpus.name for corpus in manifest.corpora)
    if names != settings.data.corpus_names:
        raise DatasetError(
            f"The dataset has the corpora {', '.join(names)}, but the recipe has "
            f"{', '.join(settings.data.corpus_names)}. Prepare the dataset again, or set "
            "data.dataset to the recipe's dataset."
        )
    left = set(manifest.shards.corpus[manifest.shards_in_training()].tolist())
    if gone := [name for index, name in enumerate(names) if index not in left]:
        raise DatasetError(
            f"All shards of the training corpus {', '.join(gone)} are quarantined, so no data is "
            "left for its share of the mixture. Prepare the dataset again."
        )
    DATA_TASKS[settings.task].check(manifest, settings)
    shares = shares_of(settings.data, [corpus.kept for corpus in manifest.corpora])
    return Mixture(manifest.shard_pairs(), shares, settings.batching.window_shards, settings.seed)


def _pair_ids(manifest: Manifest, slices: list[ShardSlice]) -> Int64Array:
    ranges: Iterator[Int64Array] = (
        np.arange(part.start, part.stop) + manifest.shards.first_pair[part.shard] for part in slices
    )
    return np.concatenate([np.empty(0, dtype=np.int64), *ranges])
