"""Steps against a long list of micro-batches, across windows and epochs."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.batch import MicroBatch
from data_pipeline.config import BatchingConfig
from data_pipeline.errors import BatchingError
from data_pipeline.plan import Cursor
from data_pipeline.stream import Span, iterate_steps, local_rank_steps, spans_of_slots
from data_pipeline.window import WindowLayout, WindowReader

WINDOW_SIZES = [5, 1, 0, 3]  # micro-batches; an epoch has 9


def layout(epoch: int, window: int) -> WindowLayout:
    tokens = [1000 * epoch + 100 * window + number for number in range(WINDOW_SIZES[window])]
    return WindowLayout(len(WINDOW_SIZES), np.array(tokens, dtype=np.int64))


def endless() -> Iterator[tuple[int, int, int]]:
    """All coordinates (epoch, window, number), one by one."""
    epoch = 0
    while True:
        for window, size in enumerate(WINDOW_SIZES):
            for number in range(size):
                yield epoch, window, number
        epoch += 1


def flatten(spans: tuple[Span, ...]) -> list[tuple[int, int, int]]:
    return [
        (span.epoch, span.window, number)
        for span in spans
        for number in range(span.start, span.stop)
    ]


@pytest.mark.parametrize("slots", [1, 2, 4, 9, 20])
def test_steps_are_the_stream_in_pieces(slots: int) -> None:
    stream = endless()
    for step in islice(iterate_steps(layout, Cursor(), slots), 12):
        expected = list(islice(stream, slots))
        assert flatten(step.spans) == expected
        assert step.target_tokens == sum(1000 * e + 100 * w + n for e, w, n in expected)


@pytest.mark.parametrize("slots", [1, 4, 7])
def test_resuming_from_any_cursor_goes_on_with_the_same_steps(slots: int) -> None:
    steps = list(islice(iterate_steps(layout, Cursor(), slots), 15))
    for number in range(10):
        cursor = Cursor.from_json(steps[number].next_cursor.to_json())
        resumed = list(islice(iterate_steps(layout, cursor, slots), 5))
        assert resumed == steps[number + 1 : number + 6]


def test_cursors_are_normalised() -> None:
    cursors = [
        step.next_cursor for step in islice(iterate_steps(layout, Cursor(), 1), sum(WINDOW_SIZES))
    ]
    assert cursors[4] == Cursor(0, 1, 0)
    assert cursors[-1] == Cursor(1, 0, 0)


def test_cursor_of_another_dataset_is_refused() -> None:
    with pytest.raises(BatchingError, match=r"offset=6\) lies beyond the 5 micro-batches"):
        next(iterate_steps(layout, Cursor(0, 0, 6), 2))


def test_slots_find_their_spans() -> None:
    step = next(iterate_steps(layout, Cursor(0, 0, 3), 8))
    everything = flatten(step.spans)
    for start in range(9):
        for stop in range(start, 9):
            assert flatten(spans_of_slots(step, range(start, stop))) == everything[start:stop]


@pytest.fixture
def batching() -> BatchingConfig:
    return BatchingConfig(max_tokens_per_micro_batch=400, micro_batches_per_step=7, window_shards=3)


def content(micro_batch: MicroBatch) -> list[list[int]]:
    arrays = [
        array for field in micro_batch.fields.values() for array in (field.ids, field.lengths)
    ]
    return [micro_batch.pair_ids.tolist(), *(array.tolist() for array in arrays)]


def test_any_number_of_ranks_reads_the_same_stream(dataset: Path, batching: BatchingConfig) -> None:
    reader = WindowReader(dataset, batching, seed=1)
    slots = batching.micro_batches_per_step

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
            assert {part.target_tokens for part in parts} == {tokens}
            stream.append([content(micro_batch) for micro_batch in micro_batches])
        return stream

    one = run(1, steps=10)
    assert all(run(ranks, steps=10) == one for ranks in (2, 3, 7))


def test_epoch_has_every_pair_once(dataset: Path, batching: BatchingConfig) -> None:
    reader = WindowReader(dataset, batching, seed=1)
    seen: list[list[int]] = [[], [], []]
    for step in local_rank_steps(reader, Cursor(), 0, 1, 1):
        if step.cursor.epoch == 3:
            break
        seen[step.cursor.epoch] += step.micro_batches[0].pair_ids.tolist()
    assert all(sorted(epoch) == list(range(reader.manifest.pairs)) for epoch in seen)
    assert seen[0] != seen[1] != seen[2]
