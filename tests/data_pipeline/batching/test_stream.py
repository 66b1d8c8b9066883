"""Steps, compared with a long list of micro-batches, across windows and epochs."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import Cursor, slots_of_rank
from data_pipeline.batching.stream import Span, iterate_steps, local_rank_steps, spans_of_slots
from data_pipeline.batching.window import WindowLayout, WindowReader
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import BatchingError
from data_pipeline.storage.store import open_store

reproducible = settings(max_examples=50, deadline=None, derandomize=True)

Coordinate = tuple[int, int, int]  # epoch, window, micro-batch


@dataclass(frozen=True)
class Layouts:
    """Number of micro-batches in each window of each epoch."""

    counts: list[list[int]]  # [epochs, windows]; the first epoch follows the last

    def __call__(self, epoch: int, window: int) -> WindowLayout:
        count = self.counts[epoch % len(self.counts)][window]
        tokens = 1 + 100 * window + np.arange(count, dtype=np.int64)
        return WindowLayout(len(self.counts[0]), tokens, tokens * 8)

    def endless(self) -> Iterator[Coordinate]:
        """Yield all micro-batches endlessly, one by one."""
        epoch = 0
        while True:
            for window, count in enumerate(self.counts[epoch % len(self.counts)]):
                for number in range(count):
                    yield epoch, window, number
            epoch += 1


FIXED = Layouts([[5, 1, 0, 3]])
MOSTLY_EMPTY = Layouts([[0, 0], [0, 0], [0, 1]])

layouts = (
    st.integers(1, 4)
    .flatmap(
        lambda windows: st.lists(
            st.lists(st.integers(0, 7), min_size=windows, max_size=windows), min_size=1, max_size=3
        )
    )
    .filter(lambda counts: any(map(sum, counts)))
    .map(Layouts)
)
slot_counts = st.integers(1, 9)


def flatten(spans: tuple[Span, ...]) -> list[Coordinate]:
    return [
        (span.epoch, span.window, number)
        for span in spans
        for number in range(span.start, span.stop)
    ]


@reproducible
@example(MOSTLY_EMPTY, 2)
@example(FIXED, 20)
@given(layouts, slot_counts)
def test_steps_divide_the_stream_in_order(layout: Layouts, slots: int) -> None:
    stream = layout.endless()
    steps = list(islice(iterate_steps(layout, Cursor(), slots), 12))
    assert len(steps) == 12
    for step in steps:
        expected = list(islice(stream, slots))
        assert flatten(step.spans) == expected
        assert step.slot_units == tuple(1 + 100 * window + number for _, window, number in expected)


@reproducible
@example(MOSTLY_EMPTY, 2)
@given(layouts, slot_counts)
def test_resuming_at_any_cursor_continues_with_the_same_steps(layout: Layouts, slots: int) -> None:
    steps = list(islice(iterate_steps(layout, Cursor(), slots), 15))
    for number in range(10):
        cursor = Cursor.from_json(json.loads(json.dumps(steps[number].next_cursor.to_json())))
        resumed = list(islice(iterate_steps(layout, cursor, slots), 5))
        assert resumed == steps[number + 1 : number + 6]


@reproducible
@given(layouts, slot_counts)
def test_each_position_has_only_one_cursor(layout: Layouts, slots: int) -> None:
    """The next micro-batch is in the cursor's window, unless that window is empty."""
    cursors = [step.next_cursor for step in islice(iterate_steps(layout, Cursor(), slots), 12)]
    counts = [len(layout(cursor.epoch, cursor.window).units) for cursor in cursors]
    assert len(counts) == 12
    for cursor, count in zip(cursors, counts, strict=True):
        assert cursor.offset < count or cursor.offset == count == 0


def test_the_cursor_moves_to_the_next_window_at_the_end_of_a_window() -> None:
    cursors = [step.next_cursor for step in islice(iterate_steps(FIXED, Cursor(), 1), 9)]
    assert cursors[4] == Cursor(0, 1, 0)
    assert cursors[-1] == Cursor(1, 0, 0)


def test_a_cursor_far_in_the_stream_needs_no_earlier_window() -> None:
    asked = []

    def layout(epoch: int, window: int) -> WindowLayout:
        asked.append((epoch, window))
        return FIXED(epoch, window)

    step = next(iterate_steps(layout, Cursor(10**9, 3, 2), 4))
    assert flatten(step.spans) == [(10**9, 3, 2), *((10**9 + 1, 0, number) for number in range(3))]
    assert asked == [(10**9, 3), (10**9 + 1, 0)]


def test_a_cursor_beyond_its_window_is_refused() -> None:
    with pytest.raises(BatchingError, match=r"micro-batch 6 is beyond the 5 micro-batches"):
        next(iterate_steps(FIXED, Cursor(0, 0, 6), 2))


def test_spans_of_slots_are_the_micro_batches_of_these_slots() -> None:
    step = next(iterate_steps(FIXED, Cursor(0, 0, 3), 8))
    everything = flatten(step.spans)
    for start in range(9):
        for stop in range(start, 9):
            assert flatten(spans_of_slots(step, range(start, stop))) == everything[start:stop]


@reproducible
@given(layouts, slot_counts)
def test_any_number_of_ranks_divides_each_step_in_order(layout: Layouts, slots: int) -> None:
    steps = list(islice(iterate_steps(layout, Cursor(), slots), 4))
    assert len(steps) == 4
    for step in steps:
        for ranks in range(1, slots + 1):
            dealt = [slots_of_rank(rank, ranks, slots) for rank in range(ranks)]
            parts = [flatten(spans_of_slots(step, mine)) for mine in dealt]
            assert [len(part) for part in parts] == [len(mine) for mine in dealt]
            assert [where for part in parts for where in part] == flatten(step.spans)


@pytest.fixture
def reader(
    dataset: Path, manifest: Manifest, data_settings: Callable[..., DataSettings]
) -> WindowReader:
    chosen = data_settings(dataset, max_tokens_per_micro_batch=400, micro_batches_per_step=7)
    return WindowReader(open_store(dataset), manifest, chosen)


def content(micro_batch: MicroBatch) -> list[list[int]]:
    arrays = [
        array for field in micro_batch.fields.values() for array in (field.ids, field.lengths)
    ]
    return [micro_batch.pair_ids.tolist(), *(array.tolist() for array in arrays)]


def test_any_number_of_ranks_reads_the_same_stream(reader: WindowReader) -> None:
    slots = 7

    def run(ranks: int, steps: int) -> list[list[list[list[int]]]]:
        dealt = [
            islice(local_rank_steps(reader, Cursor(), rank, ranks, slots), steps)
            for rank in range(ranks)
        ]
        stream = []
        for parts in zip(*dealt, strict=True):
            assert len({part.next_cursor for part in parts}) == 1
            micro_batches = [micro_batch for part in parts for micro_batch in part.micro_batches]
            assert len(micro_batches) == slots
            tokens = sum(micro_batch.tokens("tgt") for micro_batch in micro_batches)
            assert {part.units for part in parts} == {tokens}
            stream.append([content(micro_batch) for micro_batch in micro_batches])
        return stream

    one = run(1, steps=10)
    assert all(run(ranks, steps=10) == one for ranks in (2, 3, 7))


def test_a_rank_can_request_slots_of_other_ranks(reader: WindowReader) -> None:
    """This includes slots of a step that spans two windows."""
    everything = list(islice(local_rank_steps(reader, Cursor(), 0, 1, 7), 10))
    assert len(everything) == 10
    of_one_rank = islice(local_rank_steps(reader, Cursor(), 2, 3, 7), 10)
    for whole, mine in zip(everything, of_one_rank, strict=True):
        requested = [mine.request(slot) for slot in range(7)]
        for received, expected in zip(requested, whole.micro_batches, strict=True):
            assert content(received()) == content(expected)


def test_each_epoch_has_every_pair_once(reader: WindowReader) -> None:
    seen: list[list[int]] = [[], [], []]
    for step in local_rank_steps(reader, Cursor(), 0, 1, 1):
        if step.cursor.epoch == 3:
            break
        seen[step.cursor.epoch] += step.micro_batches[0].pair_ids.tolist()
    assert all(sorted(epoch) == list(range(reader.manifest.pairs)) for epoch in seen)
    assert seen[0] != seen[1] != seen[2]


def test_a_step_without_anything_to_train_on_is_refused() -> None:
    layout = WindowLayout(1, np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64))
    with pytest.raises(
        BatchingError, match=r"nothing to train on, so its loss would be divided by 0"
    ):
        next(iterate_steps(lambda epoch, window: layout, Cursor(), 2))
