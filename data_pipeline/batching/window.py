"""Windows: the slices of shards of a window, read, verified, and cut into micro-batches.

    (epoch, window) ──mixture──▶ slices ──store──▶ shards, verified ──▶ sequences
        ──subword sampling, if asked for──▶ sequences ──plan──▶ micro-batches

`WindowReader` answers coordinates. It holds no state but a cache: the same question has the same
answer in every process, so a lost data worker costs a repeated question and nothing else.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, concatenate, totals_before
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.mixture import Mixture, ShardSlice, shares_of
from data_pipeline.batching.plan import WindowPlan, check_budget, plan_window
from data_pipeline.config import DataSettings
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.errors import DatasetError
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.subword_sampling import resample, sampling_seeds
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers

MEGABYTE = 1_000_000
PAIR_ID_BYTES = 8
DEFAULT_CACHE_BYTES = 512 * MEGABYTE


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """What the planning of steps needs to know of a window."""

    windows_per_epoch: int
    target_tokens: Int64Array  # [micro-batches], EOS included, padding not
    bytes: Int64Array  # [micro-batches], sizes of their arrays


@dataclass(frozen=True, eq=False)
class _Window:
    layout: WindowLayout
    micro_batches: list[MicroBatch]


class WindowReader:
    """Reads the windows of one dataset under one recipe.

    `layout` and `fetch` raise DatasetFileError, after retries.
    """

    def __init__(
        self,
        store: DatasetStore,
        manifest: Manifest,
        settings: DataSettings,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """Opens the mixture, with the errors of `open_mixture`; reads no shard yet.

        Args:
            cache_bytes: most bytes that the arrays of the windows kept, the newest, take.
        """
        self.manifest = manifest
        self.windows_read = 0
        self._store = store
        self._settings = settings
        self._cache_bytes = cache_bytes
        self._windows: OrderedDict[tuple[int, int], _Window] = OrderedDict()
        self._target = next(f.name for f in self.manifest.fields if f.role == "target")
        self._left_out = self.manifest.left_out
        self._mixture = open_mixture(self.manifest, settings)

    def layout(self, epoch: int, window: int) -> WindowLayout:
        """How a window is cut. Reads its shards, which a `fetch` then finds in the cache."""
        return self._window(epoch, window).layout

    def fetch(self, epoch: int, window: int, start: int, stop: int) -> list[MicroBatch]:
        """Micro-batches `start` to `stop` (exclusive) of a window."""
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
            if self.manifest.shards[part.shard].name not in self._left_out
        ]
        parts: dict[str, list[FieldArrays]] = {field.name: [] for field in self.manifest.fields}
        for part in slices:
            for name, arrays in self._read_slice(part).items():
                parts[name] += arrays
        fields = {name: concatenate(arrays) for name, arrays in parts.items()}

        lengths = np.stack([field.lengths for field in fields.values()], axis=1)
        budget = self._settings.batching.max_tokens_per_micro_batch
        plan = plan_window(lengths, budget, self._settings.seed, epoch, window)
        micro_batches = assemble(_pair_ids(self.manifest, slices), fields, plan)
        return _Window(self._layout_of(fields, plan), micro_batches)

    def _layout_of(self, fields: dict[str, FieldArrays], plan: WindowPlan) -> WindowLayout:
        tokens = {
            name: np.diff(totals_before(field.lengths[plan.order], plan.bounds))
            for name, field in fields.items()
        }
        sizes = np.diff(plan.bounds)
        arrays = [
            tokens[name] * field.ids.itemsize + sizes * field.lengths.itemsize
            for name, field in fields.items()
        ]
        return WindowLayout(
            windows_per_epoch=self._mixture.windows_per_epoch,
            target_tokens=tokens[self._target],
            bytes=np.sum(arrays, axis=0) + sizes * PAIR_ID_BYTES,
        )

    def _read_slice(self, part: ShardSlice) -> dict[str, list[FieldArrays]]:
        """The sequences of each field, in one part or several."""
        shard = self.manifest.shards[part.shard]
        data = self._store.read(shard.name, shard.sha256, shard.bytes)
        blocks = unpack_shard(data, shard, texts=bool(self._sampled))
        fields: dict[str, list[FieldArrays]] = {f.name: [] for f in self.manifest.fields}
        first = 0
        for block in blocks:
            start, stop = max(part.start - first, 0), min(part.stop - first, block.pairs)
            if start < stop:
                for name, arrays in block.fields.items():
                    fields[name].append(arrays.part(start, stop))
            first += block.pairs
        for name in self._sampled:
            sentences = [line for block in blocks for line in block.sentences(name)]
            stored = concatenate(fields[name])
            fields[name] = [self._sample(name, sentences[part.start : part.stop], stored, part)]
        return fields

    def _sample(
        self, name: str, sentences: list[str], stored: FieldArrays, part: ShardSlice
    ) -> FieldArrays:
        """Another segmentation of a slice's sentences."""
        shard, settings = self.manifest.shards[part.shard], self._settings
        index = [field.name for field in self.manifest.fields].index(name)
        pair_ids = np.arange(shard.first_pair + part.start, shard.first_pair + part.stop)
        return resample(
            self._tokenizers[name],
            sentences,
            stored,
            sampling_seeds(settings.seed, part.pass_number, pair_ids, index),
            alpha=settings.tokenizer.sampling.alpha,
            max_length=min(self._sampled[name], settings.batching.max_tokens_per_micro_batch),
            tag=self.manifest.corpora[shard.corpus].tag if name != self._target else None,
        )

    @cached_property
    def _sampled(self) -> dict[str, int]:
        """The fields whose segmentations are sampled, each with its longest allowed length."""
        data, sampling = self._settings.data, self._settings.tokenizer.sampling
        limits = {"source": data.max_source_length, "target": data.max_target_length}
        if not sampling.alpha:
            return {}
        return {
            field.name: limits[field.role]
            for field in self.manifest.fields
            if sampling.sides in ("both", field.role)
        }

    @cached_property
    def _tokenizers(self) -> dict[str, Tokenizer]:
        return load_tokenizers(self._store, self.manifest)


def open_mixture(manifest: Manifest, settings: DataSettings) -> Mixture:
    """The mixture of a dataset's corpora under a recipe.

    Raises:
        DatasetError: the dataset has other corpora than the recipe, or no pair is left.
        BatchingError: the longest sequence exceeds the budget, or a corpus's share is too small.
    """
    names = tuple(corpus.name for corpus in manifest.corpora)
    if names != settings.data.corpus_names:
        raise DatasetError(
            f"The dataset has the corpora {', '.join(names)} and the recipe "
            f"{', '.join(settings.data.corpus_names)}. Prepare it again, or name the recipe's "
            "dataset with data.dataset."
        )
    left = {shard.corpus for shard in manifest.shards if shard.name not in manifest.left_out}
    if gone := [name for index, name in enumerate(names) if index not in left]:
        raise DatasetError(
            f"All shards of {', '.join(gone)} are quarantined, so there is nothing to train on for "
            "its share. Prepare the dataset again."
        )
    longest = np.array([list(manifest.longest().values())])
    check_budget(longest, settings.batching.max_tokens_per_micro_batch)
    shares = shares_of(settings.data, [corpus.kept for corpus in manifest.corpora])
    return Mixture(manifest.shard_pairs(), shares, settings.batching.window_shards, settings.seed)


def _pair_ids(manifest: Manifest, slices: list[ShardSlice]) -> Int64Array:
    ranges: Iterator[Int64Array] = (
        np.arange(part.start, part.stop) + manifest.shards[part.shard].first_pair for part in slices
    )
    return np.concatenate([np.empty(0, dtype=np.int64), *ranges])
