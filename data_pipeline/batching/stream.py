"""Endless stream of micro-batches, cut into steps.

Epochs consist of windows, and windows of micro-batches. A step is the next `micro_batches_per_step`
micro-batches, regardless of window and epoch boundaries. A layout gives the number of micro-batches
of a window, so a rank can plan its steps without the data of other ranks.

    layout(epoch, window) -> iterate_steps -> StepPlan -> spans_of_slots -> fetch
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import Cursor, slots_of_rank
from data_pipeline.batching.window import WindowLayout, WindowReader
from data_pipeline.errors import BatchingError
from foundation.wording import counted


@dataclass(frozen=True)
class Span:
    """Consecutive micro-batches `start` to `stop` (exclusive) of one window."""

    epoch: int
    window: int
    start: int
    stop: int


@dataclass(frozen=True)
class StepPlan:
    """Plan of a step: slot i is the i-th micro-batch of the concatenated spans."""

    spans: tuple[Span, ...]
    slot_units: tuple[int, ...]  # loss units of each slot, see `DataTask.units`
    cursor: Cursor  # position before the step
    next_cursor: Cursor  # position after the step, which its checkpoint stores


def _no_other_slots(slot: int) -> Callable[[], MicroBatch]:
    raise AssertionError(f"this stream has no micro-batches of other ranks, such as slot {slot}")


@dataclass(frozen=True, eq=False)
class RankStep:
    """One rank's part of a step."""

    slots: range
    micro_batches: list[MicroBatch]  # one for each slot
    # Loss units of each slot of the step, over all ranks. A unit is what the task counts, such as a
    # target token, a masked token or an example.
    slot_units: tuple[int, ...]
    cursor: Cursor
    next_cursor: Cursor
    # Requests the micro-batch of any slot of the step; the returned function waits for it.
    request: Callable[[int], Callable[[], MicroBatch]] = _no_other_slots

    @property
    def units(self) -> int:
        """Number of loss units of the whole step, by which the loss is divided."""
        return sum(self.slot_units)


def iterate_steps(
    layout: Callable[[int, int], WindowLayout], cursor: Cursor, micro_batches_per_step: int
) -> Iterator[StepPlan]:
    """Yield plans of steps endlessly, starting at the cursor."""
    while True:
        spans: list[Span] = []
        units: list[int] = []
        missing = micro_batches_per_step
        position = cursor
        while missing:
            window = layout(position.epoch, position.window)
            count = len(window.units)
            if position.offset > count:
                raise BatchingError(
                    f"The cursor {position} is beyond the {counted(count, 'micro-batch')} of its "
                    "window. The cursor belongs to another dataset or to other batching settings: "
                    "use the dataset and the settings of the run."
                )
            stop = min(position.offset + missing, count)
            if stop > position.offset:
                spans.append(Span(position.epoch, position.window, position.offset, stop))
                units += window.units[position.offset : stop].tolist()
                missing -= stop - position.offset
            position = (
                Cursor(position.epoch, position.window, stop)
                if stop < count
                else next_window(position, window.windows_per_epoch)
            )
        if not any(units):
            raise BatchingError(
                f"The step from {cursor} has nothing to train on, so its loss would be divided by "
                "0. Use corpora with longer examples, or raise batching.max_tokens_per_micro_batch."
            )
        yield StepPlan(tuple(spans), tuple(units), cursor, position)
        cursor = position


def next_window(position: Cursor, windows_per_epoch: int) -> Cursor:
    """Return the position of the first micro-batch of the next window."""
    if position.window + 1 < windows_per_epoch:
        return Cursor(position.epoch, position.window + 1, 0)
    return Cursor(position.epoch + 1, 0, 0)


def spans_of_slots(step: StepPlan, slots: range) -> tuple[Span, ...]:
    """Return the spans of the micro-batches that belong to the given slots of a step."""
    found = []
    first_slot = 0
    for span in step.spans:
        start = span.start + max(0, slots.start - first_slot)
        stop = min(span.stop, span.start + slots.stop - first_slot)
        if start < stop:
            found.append(Span(span.epoch, span.window, start, stop))
        first_slot += span.stop - span.start
    return tuple(found)


def local_rank_steps(
    reader: WindowReader, cursor: Cursor, rank: int, ranks: int, micro_batches_per_step: int
) -> Iterator[RankStep]:
    """Yield a rank's steps endlessly, reading windows in this process."""
    slots = slots_of_rank(rank, ranks, micro_batches_per_step)
    for step in iterate_steps(reader.layout, cursor, micro_batches_per_step):
        yield RankStep(
            slots,
            _fetch(reader, step, slots),
            step.slot_units,
            step.cursor,
            step.next_cursor,
            partial(_request, reader, step),
        )


def _fetch(reader: WindowReader, step: StepPlan, slots: range) -> list[MicroBatch]:
    return [
        micro_batch
        for span in spans_of_slots(step, slots)
        for micro_batch in reader.fetch(span.epoch, span.window, span.start, span.stop)
    ]


def _request(reader: WindowReader, step: StepPlan, slot: int) -> Callable[[], MicroBatch]:
    return lambda: _fetch(reader, step, range(slot, slot + 1))[0]
