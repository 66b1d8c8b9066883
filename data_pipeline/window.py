"""Windows: the shards of a window, read, verified, and cut into micro-batches by the plan.

`WindowReader` answers coordinates. It holds no state but a cache: the same question has the same
answer in every process, so a lost data worker costs a repeated question and nothing else.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipeline.batch import MicroBatch, assemble, concatenate
from data_pipeline.config import BatchingConfig
from data_pipeline.errors import DatasetFileError
from data_pipeline.manifest import Manifest, ShardInfo
from data_pipeline.plan import (
    Int64Array,
    WindowPlan,
    check_budget,
    plan_window,
    window_shards_of,
    windows_per_epoch,
)
from data_pipeline.shards import Block, read_shard

# A file system that is briefly away is worth waiting for; a damaged file is not, but the two
# cannot always be told apart.
RETRY_DELAYS_SECONDS = (0.5, 2.0, 8.0)


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """What planning steps needs to know of a window."""

    windows_per_epoch: int
    target_tokens: Int64Array  # [micro-batches], EOS included, padding not


@dataclass(frozen=True, eq=False)
class _PlannedWindow:
    shards: list[ShardInfo]
    pair_ids: Int64Array  # [pairs], in the order of the shards
    plan: WindowPlan
    layout: WindowLayout


class WindowReader:
    """Reads the windows of one dataset under one batching and seed.

    Raises DatasetError for a missing or damaged dataset and BatchingError when its longest pair
    exceeds the budget, both at once; DatasetFileError from `fetch`, after retries.
    """

    def __init__(
        self,
        dataset_path: Path,
        batching: BatchingConfig,
        seed: int,
        cached_windows: int = 3,
        retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS,
    ) -> None:
        self.manifest = Manifest.load(dataset_path)
        self._dataset_path = dataset_path
        self._batching = batching
        self._seed = seed
        self._retry_delays_seconds = retry_delays_seconds
        self._lengths = self.manifest.load_lengths(dataset_path)
        self._target = [field.role for field in self.manifest.fields].index("target")
        check_budget(self._lengths, batching.max_tokens_per_micro_batch)
        self._plan = lru_cache(cached_windows)(self._make_plan)
        self._micro_batches = lru_cache(cached_windows)(self._make_micro_batches)

    def layout(self, epoch: int, window: int) -> WindowLayout:
        """Plans a window from the lengths alone; reads no shard."""
        return self._plan(epoch, window).layout

    def fetch(self, epoch: int, window: int, start: int, stop: int) -> list[MicroBatch]:
        """Micro-batches `start` to `stop` (exclusive) of a window."""
        micro_batches = self._micro_batches(epoch, window)
        assert 0 <= start <= stop <= len(micro_batches), "coordinates come from the layout"
        return micro_batches[start:stop]

    def _make_plan(self, epoch: int, window: int) -> _PlannedWindow:
        window_shards = self._batching.window_shards
        shard_count = len(self.manifest.shards)
        numbers = window_shards_of(shard_count, window_shards, self._seed, epoch, window)
        shards = [self.manifest.shards[number] for number in numbers]
        pair_ids = np.concatenate(
            [np.arange(shard.first_pair, shard.first_pair + shard.pairs) for shard in shards]
        )
        lengths = self._lengths[pair_ids]
        budget = self._batching.max_tokens_per_micro_batch
        plan = plan_window(lengths, budget, self._seed, epoch, window)
        target_lengths = lengths[plan.order, self._target]
        target_tokens = np.add.reduceat(target_lengths, plan.bounds[:-1], dtype=np.int64)
        layout = WindowLayout(windows_per_epoch(shard_count, window_shards), target_tokens)
        return _PlannedWindow(shards, pair_ids, plan, layout)

    def _make_micro_batches(self, epoch: int, window: int) -> list[MicroBatch]:
        planned = self._plan(epoch, window)
        blocks: list[Block] = []
        for shard in planned.shards:
            blocks += self._read_patiently(shard)
        fields = {
            field.name: concatenate([block.fields[field.name] for block in blocks])
            for field in self.manifest.fields
        }
        return assemble(planned.pair_ids, fields, planned.plan)

    def _read_patiently(self, shard: ShardInfo) -> list[Block]:
        for delay_seconds in (*self._retry_delays_seconds, None):
            try:
                blocks = read_shard(self._dataset_path, shard)
                break
            except DatasetFileError:
                if delay_seconds is None:
                    raise
                time.sleep(delay_seconds)
        self._check_lengths(blocks, shard)
        return blocks

    def _check_lengths(self, blocks: list[Block], shard: ShardInfo) -> None:
        """The plan was made from the sidecar: the shard has to agree, or budgets would not hold."""
        promised = self._lengths[shard.first_pair : shard.first_pair + shard.pairs]
        for column, field in enumerate(self.manifest.fields):
            found = np.concatenate([block.fields[field.name].lengths for block in blocks])
            if not np.array_equal(found, promised[:, column]):
                raise DatasetFileError(
                    shard.name,
                    f"the lengths of {field.name} that {self.manifest.lengths.file} has",
                    "other lengths",
                )
