"""A billion pairs in a hundred thousand shards: a plan costs the same at any step of a run.

Sentences are made up: a pair's lengths follow from its number, so that no text is needed.
"""

import hashlib
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from support.memory import at_most

from data_pipeline.manifest import (
    CorpusInfo,
    FieldInfo,
    FileInfo,
    Manifest,
    ShardInfo,
    SpecialIds,
    TokenizerInfo,
)
from data_pipeline.mixture import Mixture
from data_pipeline.plan import Cursor, Int64Array, WindowPlan, plan_window, splitmix64_at
from data_pipeline.store import MANIFEST_NAME, open_store
from data_pipeline.stream import iterate_steps
from data_pipeline.window import WindowLayout

SHARD_PAIRS = 10_000
BUDGET = 25_000
MICRO_BATCHES_PER_STEP = 16
SEED = 1
NEAR_STEP, FAR_STEP = 10, 10**7
ROUNDS = 5


@dataclass(frozen=True)
class Corpora:
    """How many shards each corpus has, and its share of an epoch."""

    shards: tuple[int, ...]
    shares: tuple[float, ...]

    def mixture(self) -> Mixture:
        sizes = [np.full(count, SHARD_PAIRS) for count in self.shards]
        return Mixture(sizes, self.shares, window_shards=8, seed=SEED)


ONE = Corpora((100_000,), (1.0,))
THREE = Corpora((90_000, 9_000, 1_000), (0.6, 0.3, 0.1))
ONE_SHARD_AGAIN_AND_AGAIN = Corpora((99_999, 1), (0.9, 0.1))  # 10,000 passes an epoch

every_mixture = pytest.mark.parametrize("corpora", [ONE, THREE, ONE_SHARD_AGAIN_AND_AGAIN])


class Planner:
    """Plans as a WindowReader does, with made-up lengths."""

    def __init__(self, corpora: Corpora) -> None:
        self.mixture = corpora.mixture()

    def pair_ids(self, epoch: int, window: int) -> Int64Array:
        return np.concatenate(
            [
                np.arange(part.start, part.stop) + part.shard * SHARD_PAIRS
                for part in self.mixture.slices(epoch, window)
            ]
        )

    def plan(self, epoch: int, window: int) -> tuple[Int64Array, WindowPlan]:
        """The lengths [pairs, fields] and the plan of a window."""
        lengths = made_up_lengths(self.pair_ids(epoch, window))
        return lengths, plan_window(lengths, BUDGET, SEED, epoch, window)

    def layout(self, epoch: int, window: int) -> WindowLayout:
        lengths, plan = self.plan(epoch, window)
        tokens = np.add.reduceat(lengths[plan.order, 1], plan.bounds[:-1])
        return WindowLayout(self.mixture.windows_per_epoch, tokens, 4 * tokens)

    def cursor_at(self, step: int) -> Cursor:
        """About where a run is after so many steps."""
        per_window = len(self.layout(0, 0).target_tokens)
        windows, offset = divmod(step * MICRO_BATCHES_PER_STEP, per_window)
        return Cursor(*divmod(windows, self.mixture.windows_per_epoch), min(offset, per_window // 2))


def made_up_lengths(pair_ids: Int64Array) -> Int64Array:
    """Source and target lengths between 4 and 71: [pairs] -> [pairs, fields]."""
    keys = splitmix64_at(0, pair_ids.astype(np.uint64)).view(np.int64)
    source = 4 + (keys & 31) + (keys >> 8 & 31)
    return np.stack([source, np.maximum(4, source + (keys >> 16 & 7) - 2)], axis=1)


def seconds(action: Callable[[], object]) -> float:
    """Of this thread alone, whatever else the machine does."""
    start = time.thread_time()
    action()
    return time.thread_time() - start


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def first_step(corpora: Corpora, cursor: Cursor) -> None:
    """What a process does that has just been started."""
    next(iterate_steps(Planner(corpora).layout, cursor, MICRO_BATCHES_PER_STEP))


@every_mixture
def test_a_window_takes_the_same_time_at_any_step(corpora: Corpora) -> None:
    planner = Planner(corpora)
    cursors = [planner.cursor_at(step) for step in (NEAR_STEP, FAR_STEP)]
    times: list[list[float]] = [[], []]
    for cursor in cursors:
        planner.layout(cursor.epoch, cursor.window)  # shuffles the shards of the pass
        for number in range(1, ROUNDS + 1):
            window = cursor.window + number
            times[cursors.index(cursor)].append(
                seconds(lambda e=cursor.epoch, w=window: planner.layout(e, w))
            )
    near, far = map(median, times)
    assert far < 2 * near, f"{far:.4f} s at step {FAR_STEP:,}, {near:.4f} s at step {NEAR_STEP}"


@every_mixture
def test_resuming_takes_the_same_time_at_any_step(corpora: Corpora) -> None:
    cursors = [Planner(corpora).cursor_at(step) for step in (NEAR_STEP, FAR_STEP)]
    times = [
        [seconds(lambda c=cursor: first_step(corpora, c)) for cursor in cursors]
        for _ in range(ROUNDS)
    ]
    near, far = map(median, zip(*times, strict=True))
    assert far < 2 * near, f"{far:.4f} s at step {FAR_STEP:,}, {near:.4f} s at step {NEAR_STEP}"


@every_mixture
def test_resuming_takes_the_same_memory_at_any_step(corpora: Corpora) -> None:
    cursors = [Planner(corpora).cursor_at(step) for step in (NEAR_STEP, FAR_STEP)]
    near, far = (peak_bytes(lambda c=cursor: first_step(corpora, c)) for cursor in cursors)
    assert far < 1.2 * near
    assert far < 50e6
