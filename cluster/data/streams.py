"""A rank's stream of micro-batches, prefetched from any live data worker.

    cursor ──layouts──▶ plans of steps ──▶ requests ahead, bounded in bytes ──▶ RankStep

All ranks request a window from the same worker, which caches the window for the other ranks. The
ranks of a node request its layout once (`node_layouts.py`). When a worker dies or does not answer,
the request goes to another worker (`worker_client.py`). Every worker gives the same answer, because
an answer depends only on its request.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

from cluster.data.worker_client import Request, WorkerClient
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import Cursor, slots_of_rank
from data_pipeline.batching.stream import (
    RankStep,
    Span,
    StepPlan,
    iterate_steps,
    next_window,
    spans_of_slots,
)
from data_pipeline.batching.window import WindowLayout

# Maximum number of windows to request in advance; fewer if they exceed the limit on bytes.
WINDOWS_AHEAD = 2


class WorkerStreams:
    """Endless stream of a rank's micro-batches."""

    def __init__(
        self,
        client: WorkerClient,
        *,
        rank: int,
        ranks: int,
        slots: int,
        steps_ahead: int,
        bytes_ahead: int,
    ) -> None:
        """Initialize the stream of one rank.

        Args:
            bytes_ahead: limit on the bytes requested ahead of time. It applies separately to steps
                and to windows.
        """
        self._client = client
        self._slots_per_step = slots
        self._mine = slots_of_rank(rank, ranks, slots)
        self._steps_ahead = steps_ahead
        self._bytes_ahead = bytes_ahead

    def open(self, cursor: Cursor) -> Iterator[RankStep]:
        """Yield the rank's steps, starting at a cursor."""
        layouts = _Layouts(self._client, self._bytes_ahead)
        plans = iterate_steps(layouts, cursor, self._slots_per_step)
        pending: deque[tuple[StepPlan, list[Request], int]] = deque()
        while True:
            while not pending or (
                len(pending) <= self._steps_ahead
                and sum(size for _, _, size in pending) < self._bytes_ahead
            ):
                step = next(plans)
                spans = spans_of_slots(step, self._mine)
                requests = [self._client.ask("fetch", (s.epoch, s.window), s) for s in spans]
                pending.append((step, requests, sum(layouts.bytes_of(span) for span in spans)))
                layouts.read_ahead(step.cursor, step.next_cursor)
            step, requests, _ = pending.popleft()
            yield self._receive(step, requests)

    def _receive(self, step: StepPlan, requests: list[Request]) -> RankStep:
        parts: list[list[MicroBatch]] = [self._client.answer(request) for request in requests]
        return RankStep(
            slots=self._mine,
            micro_batches=[micro_batch for part in parts for micro_batch in part],
            slot_units=step.slot_units,
            cursor=step.cursor,
            next_cursor=step.next_cursor,
            request=partial(self._request, step),
        )

    def _request(self, step: StepPlan, slot: int) -> Callable[[], MicroBatch]:
        """Request the micro-batch of one slot, which may belong to another rank."""
        (span,) = spans_of_slots(step, range(slot, slot + 1))
        request = self._client.ask("fetch", (span.epoch, span.window), span)

        def received() -> MicroBatch:
            (micro_batch,) = self._client.answer(request)
            return cast(MicroBatch, micro_batch)

        return received


class _Layouts:
    """Cache of window layouts by epoch and window; it also requests the following windows early."""

    def __init__(self, client: WorkerClient, bytes_ahead: int) -> None:
        self._client = client
        self._bytes_ahead = bytes_ahead
        self._requests: dict[tuple[int, int], Request] = {}
        self._known: dict[tuple[int, int], WindowLayout] = {}

    def __call__(self, epoch: int, window: int) -> WindowLayout:
        if (epoch, window) not in self._known:
            request = self._request(epoch, window)
            self._known[epoch, window] = self._client.answer(request)
        return self._known[epoch, window]

    def bytes_of(self, span: Span) -> int:
        layout = self._known[span.epoch, span.window]
        return int(layout.bytes[span.start : span.stop].sum())

    def read_ahead(self, current: Cursor, following: Cursor) -> None:
        """Let workers read the windows after those of a step, and forget earlier windows."""
        layout = self._known[current.epoch, current.window]
        # Assume that all windows are as large as this one, which is nearly true.
        window_bytes = max(1, int(layout.bytes.sum()))
        ahead = min(WINDOWS_AHEAD, self._bytes_ahead // window_bytes - 1)
        wanted = {(current.epoch, current.window), (following.epoch, following.window)}
        position = following
        for _ in range(ahead):
            position = next_window(position, layout.windows_per_epoch)
            self._request(position.epoch, position.window)
            wanted.add((position.epoch, position.window))
        self._requests = {key: self._requests[key] for key in self._requests.keys() & wanted}
        self._known = {key: self._known[key] for key in self._known.keys() & wanted}

    def _request(self, epoch: int, window: int) -> Request:
        if (epoch, window) not in self._requests:
            self._requests[epoch, window] = self._client.ask_for_layout(epoch, window)
        return self._requests[epoch, window]
