"""A billion pairs in a hundred thousand shards: a plan costs the same at any step of a run.

The lengths of a pair are computed from its number, so no text is needed.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.quality.memory import at_most, measured_peak

from data_pipeline.arrays import Int64Array
from data_pipeline.batching.mixture import Mixture
from data_pipeline.batching.plan import Cursor, WindowPlan, plan_window
from data_pipeline.batching.stream import iterate_steps
from data_pipeline.batching.window import WindowLayout
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import (
    CorpusInfo,
    FieldInfo,
    FileInfo,
    ShardInfo,
    SpecialIds,
    TokenizerInfo,
)
from data_pipeline.dataset.shard_columns import ShardColumns
from data_pipeline.random_keys import splitmix64_at
from data_pipeline.storage.store import MANIFEST_NAME, open_store

SHARD_PAIRS = 10_000
BUDGET = 25_000
MICRO_BATCHES_PER_STEP = 16
SEED = 1
NEAR_STEP, FAR_STEP = 10, 10**7
WINDOWS = 5


@dataclass(frozen=True)
class Corpora:
    """Number of shards of each corpus, and its share of an epoch."""

    shards: tuple[int, ...]
    shares: tuple[float, ...]

    def mixture(self) -> Mixture:
        sizes = [np.full(count, SHARD_PAIRS) for count in self.shards]
        return Mixture(sizes, self.shares, window_shards=8, seed=SEED)


ONE = Corpora((100_000,), (1.0,))
THREE = Corpora((90_000, 9_000, 1_000), (0.6, 0.3, 0.1))
ONE_SHARD_AGAIN_AND_AGAIN = Corpora((99_999, 1), (0.9, 0.1))  # 10,000 passes per epoch

every_mixture = pytest.mark.parametrize("corpora", [ONE, THREE, ONE_SHARD_AGAIN_AND_AGAIN])


class Planner:
    """Plans like a WindowReader, with made-up lengths."""

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
        """Return the lengths [pairs, fields] and the plan of a window."""
        lengths = made_up_lengths(self.pair_ids(epoch, window))
        return lengths, plan_window(lengths, BUDGET, SEED, epoch, window)

    def layout(self, epoch: int, window: int) -> WindowLayout:
        lengths, plan = self.plan(epoch, window)
        tokens = np.add.reduceat(lengths[plan.order, 1], plan.bounds[:-1])
        return WindowLayout(self.mixture.windows_per_epoch, tokens, 4 * tokens)

    def cursor_at(self, step: int) -> Cursor:
        """Return the approximate position of a run after this number of steps."""
        per_window = len(self.layout(0, 0).units)
        windows, offset = divmod(step * MICRO_BATCHES_PER_STEP, per_window)
        epoch, window = divmod(windows, self.mixture.windows_per_epoch)
        return Cursor(epoch, window, min(offset, per_window // 2))


def made_up_lengths(pair_ids: Int64Array) -> Int64Array:
    """Return source and target lengths between 4 and 71: [pairs] -> [pairs, fields]."""
    keys = splitmix64_at(0, pair_ids.astype(np.uint64)).view(np.int64)
    source = 4 + (keys & 31) + (keys >> 8 & 31)
    return np.stack([source, np.maximum(4, source + (keys >> 16 & 7) - 2)], axis=1)


def lines_run(action: Callable[[], object]) -> int:
    """Count the Python lines that an action executes, including repetitions.

    Work inside numpy is not counted, but needs memory, which `peak_bytes` measures.
    """
    lines = 0

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        action()
    finally:
        sys.settrace(before)
    return lines


def peak_bytes(action: Callable[[], object]) -> int:
    with measured_peak() as peak:
        action()
    return peak.bytes


def first_step(corpora: Corpora, cursor: Cursor) -> None:
    """Plan the first step as a process does that has just started."""
    next(iterate_steps(Planner(corpora).layout, cursor, MICRO_BATCHES_PER_STEP))


def assert_same_work(corpora: Corpora, action: Callable[[Cursor], Callable[[], object]]) -> None:
    """Compare the executed lines of an action at the near step and at the far step."""
    cursors = [Planner(corpora).cursor_at(step) for step in (NEAR_STEP, FAR_STEP)]
    near, far = (lines_run(action(cursor)) for cursor in cursors)
    assert far < 1.2 * near


@every_mixture
def test_a_window_takes_the_same_work_at_any_step(corpora: Corpora) -> None:
    def windows(cursor: Cursor) -> Callable[[], object]:
        planner = Planner(corpora)
        planner.layout(cursor.epoch, cursor.window)  # shuffles the shards of the pass
        following = range(cursor.window + 1, cursor.window + 1 + WINDOWS)
        return lambda: [planner.layout(cursor.epoch, window) for window in following]

    assert_same_work(corpora, windows)


@every_mixture
def test_resuming_takes_the_same_work_at_any_step(corpora: Corpora) -> None:
    assert_same_work(corpora, lambda cursor: partial(first_step, corpora, cursor))


@every_mixture
def test_resuming_takes_the_same_memory_at_any_step(corpora: Corpora) -> None:
    """The memory contains a window's 80,000 pairs, and some bytes for each shard of a pass."""
    cursors = [Planner(corpora).cursor_at(step) for step in (NEAR_STEP, FAR_STEP)]
    near, far = (peak_bytes(partial(first_step, corpora, cursor)) for cursor in cursors)
    assert far < 1.2 * near
    assert far < 15e6


@every_mixture
def test_steps_far_in_a_run_can_be_read_and_resumed(corpora: Corpora) -> None:
    planner = Planner(corpora)
    cursor = planner.cursor_at(FAR_STEP)
    assert cursor.epoch > 100
    steps = list(islice(iterate_steps(planner.layout, cursor, MICRO_BATCHES_PER_STEP), 20))
    assert len({span.window for step in steps for span in step.spans}) > 2
    for step in steps:
        assert sum(span.stop - span.start for span in step.spans) == MICRO_BATCHES_PER_STEP
    resumed = iterate_steps(Planner(corpora).layout, steps[8].next_cursor, MICRO_BATCHES_PER_STEP)
    assert list(islice(resumed, 5)) == steps[9:14]


@every_mixture
def test_windows_far_in_a_run_have_each_pair_once_within_the_budget(corpora: Corpora) -> None:
    planner = Planner(corpora)
    cursor = planner.cursor_at(FAR_STEP)
    lengths, plan = planner.plan(cursor.epoch, cursor.window)
    longest = lengths.max(axis=1)[plan.order]
    assert np.array_equal(np.sort(plan.order), np.arange(len(lengths)))
    assert (np.maximum.reduceat(longest, plan.bounds[:-1]) * np.diff(plan.bounds)).max() <= BUDGET

    pair_ids = [planner.pair_ids(cursor.epoch, cursor.window + number) for number in range(10)]
    large = np.sort(np.concatenate(pair_ids))
    large = large[large < corpora.shards[0] * SHARD_PAIRS]
    assert np.diff(large).min() > 0, "a pair comes twice in a pass"


@every_mixture
def test_windows_far_in_a_run_have_the_corpora_in_their_shares(corpora: Corpora) -> None:
    planner = Planner(corpora)
    cursor = planner.cursor_at(FAR_STEP)
    taken = [0] * len(corpora.shards)
    ends = np.cumsum(corpora.shards)
    for window in range(cursor.window, cursor.window + 50):
        for part in planner.mixture.slices(cursor.epoch, window):
            taken[np.searchsorted(ends, part.shard, side="right")] += part.stop - part.start
    assert [pairs / sum(taken) for pairs in taken] == pytest.approx(corpora.shares, abs=0.005)


def test_loading_a_manifest_takes_at_most_three_kilobytes_per_shard(tmp_path: Path) -> None:
    shards = 10_000
    content = manifest_of(shards).to_bytes()
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with at_most(3000 * shards):
        manifest = Manifest.load(open_store(tmp_path))
    assert manifest.to_bytes() == content


def manifest_of(shards: int) -> Manifest:
    """Return a manifest of one corpus whose shards do not exist."""
    sha256 = hashlib.sha256(b"").hexdigest()
    tokenizer = TokenizerInfo(file="tokenizer.model", sha256=sha256, vocabulary_size=32_000)
    pairs = shards * SHARD_PAIRS
    return Manifest(
        fields=(
            FieldInfo(name="src", role="source", language="en"),
            FieldInfo(name="tgt", role="target", language="de"),
        ),
        tokenizers={"src": tokenizer, "tgt": tokenizer},
        special_ids=SpecialIds(pad=0, unk=1, bos=2, eos=3),
        corpora=(
            CorpusInfo(
                name="train", tag=None, sha256s=(sha256,), read=pairs, kept=pairs, dropped={}
            ),
        ),
        lengths={"src": (0, 0, pairs), "tgt": (0, 0, pairs)},
        cleaning=FileInfo(file="cleaning.json", sha256=sha256),
        heldout={},
        preparation={},
        shards=ShardColumns.of(
            [
                ShardInfo(
                    name=f"shards/train-{number:06d}.tar",
                    bytes=1_000_000 + number,
                    sha256=hashlib.sha256(str(number).encode()).hexdigest(),
                    corpus=0,
                    pairs=SHARD_PAIRS,
                    first_pair=number * SHARD_PAIRS,
                    tokens={"src": 2 * SHARD_PAIRS, "tgt": 2 * SHARD_PAIRS},
                )
                for number in range(shards)
            ]
        ),
    )
