"""Packing of documents: they are cut into parts, and the parts are packed into rows.

    lengths ──cut at the context length, from a random offset──▶ parts
        ──best fit, the longest first──▶ rows ──cut up a few rows to fill the others──▶ rows
        ──shuffle──▶ micro-batches

A row has at most `context_length` tokens. A part of exactly that length fills a row. Every shorter
part goes into the fullest row with enough space (best-fit decreasing, Johnson et al. 1974; for
language models Ding et al. 2024, "Fewer Truncations Improve Language Modeling"). Parts are cut
again only if the padding of a window would exceed MAX_PADDING. After these cuts, padding is at most
the share MAX_PADDING of the window's tokens, or less than one row.
"""

from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.arrays import Int32Array, Int64Array
from data_pipeline.batching.plan import Cuts, WindowPlan
from data_pipeline.random_keys import (
    DOCUMENT_PHASE,
    MICRO_BATCH_SHUFFLE,
    PAIR_SHUFFLE,
    permutation,
    splitmix64,
    stream_state,
)

MAX_PADDING = 0.02  # maximum share of padding in a window's rows


class Part(NamedTuple):
    """Part of a document: tokens `start` to `stop` (exclusive) among its tokens to predict."""

    document: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


Row = list[Part]


def plan_packed(
    lengths: Int32Array | Int64Array,
    context_length: int,
    budget: int,
    *,
    seed: int,
    epoch: int,
    window: int,
    before: int = 1,
    fills: bool = True,
) -> WindowPlan:
    """Pack a window's documents into rows, and cut the rows into micro-batches.

    Args:
        lengths: [documents], number of tokens to predict, at least 1 for each.
        context_length: maximum tokens of a row.
        budget: maximum tokens of a micro-batch, padding included; at least `context_length`.
        before: number of tokens that each part contains before its first token to predict.
        fills: whether parts are cut again to fill rows. If False, no document that fits into a row
            is cut, and there may be more padding.
    """
    order = permutation(len(lengths), PAIR_SHUFFLE, seed, epoch, window)
    state = stream_state(DOCUMENT_PHASE, seed, epoch, window)
    phases = (splitmix64(state, len(lengths)) % np.uint64(context_length)).astype(np.int64)
    parts = cut_documents(lengths, order.tolist(), context_length, phases)
    rows = _shuffled(pack(parts, context_length, fills=fills), seed, epoch, window)
    return _plan(rows, budget // context_length, before)


def plan_uncut(
    parts: Sequence[Part],
    context_length: int,
    budget: int,
    *,
    seed: int,
    epoch: int,
    window: int,
) -> WindowPlan:
    """Pack parts like `plan_packed`, but without cutting them again; there may be more padding.

    Args:
        parts: parts of at most `context_length` tokens each, in random order.
    """
    rows = _shuffled(pack(parts, context_length, fills=False), seed, epoch, window)
    return _plan(rows, budget // context_length, before=0)


def plan_packed_heldout(
    lengths: Int32Array | Int64Array, context_length: int, budget: int, before: int = 1
) -> WindowPlan:
    """Pack like `plan_packed`, but cut each document from its beginning and shuffle nothing.

    No part is cut again to fill a row, so that a document's loss does not depend on the other
    documents of the set.
    """
    parts = cut_documents(
        lengths, range(len(lengths)), context_length, np.zeros(len(lengths), dtype=np.int64)
    )
    rows = pack(parts, context_length, fills=False)
    return _plan(rows, budget // context_length, before)


def cut_documents(
    lengths: Int32Array | Int64Array,
    order: Sequence[int],
    context_length: int,
    phases: Int64Array,
) -> list[Part]:
    """Cut documents, in the given order, into parts of at most `context_length` tokens.

    Args:
        phases: [documents], number of tokens by which the first part of a document is shorter than
            `context_length`; used only for documents longer than `context_length`. Random phases
            cut the same text at different places in each pass.
    """
    parts: list[Part] = []
    for document, length in zip(order, lengths[list(order)].tolist(), strict=True):
        stop = 0
        size = context_length - int(phases[document]) if length > context_length else length
        while stop < length:
            start, stop = stop, min(stop + size, length)
            parts.append(Part(document, start, stop))
            size = context_length
    return parts


def pack(parts: Sequence[Part], context_length: int, *, fills: bool = True) -> list[Row]:
    """Pack parts into rows of at most `context_length` tokens, with each token in one row."""
    rows = _best_fit(_longest_first(parts), context_length)
    return _fill(rows, context_length) if fills else rows


def _longest_first(parts: Sequence[Part]) -> list[Part]:
    # Python's sort is stable: parts of equal size keep the given order, which is random in
    # training.
    return sorted(parts, key=lambda part: -part.size)


def _best_fit(parts: Sequence[Part], context_length: int) -> list[Row]:
    """Put each part into the fullest row with space for it, or into a new row."""
    rows: list[Row] = []
    by_room: list[list[int]] = [[] for _ in range(context_length + 1)]  # row numbers
    rooms = 0  # bit r is set if a row has space for r more tokens
    for part in parts:
        enough = rooms >> part.size
        if enough:
            room = (enough & -enough).bit_length() - 1 + part.size
            number = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, number = context_length, len(rows)
            rows.append([])
        rows[number].append(part)
        if left := room - part.size:
            by_room[left].append(number)
            rooms |= 1 << left
    return rows


def _fill(rows: list[Row], context_length: int) -> list[Row]:
    """Cut up the emptiest rows to fill the others, until there is little padding."""
    padding = len(rows) * context_length - sum(part.size for row in rows for part in row)
    rooms = sorted(
        (context_length - sum(part.size for part in row), number) for number, row in enumerate(rows)
    )
    while padding >= context_length and padding > MAX_PADDING * len(rooms) * context_length:
        _, donor = rooms.pop()
        for part in rows[donor]:
            start = part.start
            while start < part.stop:
                room, number = rooms.pop()  # the emptiest row, which needs the fewest cuts
                stop = min(part.stop, start + room)
                rows[number].append(Part(part.document, start, stop))
                insort(rooms, (room - (stop - start), number))
                start = stop
        rows[donor] = []
        padding -= context_length
    return [row for row in rows if row]


def _shuffled(rows: list[Row], seed: int, epoch: int, window: int) -> list[Row]:
    shuffle = permutation(len(rows), MICRO_BATCH_SHUFFLE, seed, epoch, window)
    return [rows[number] for number in shuffle.tolist()]


def _plan(rows: Sequence[Row], rows_per_micro_batch: int, before: int) -> WindowPlan:
    parts = np.array([part for row in rows for part in row], dtype=np.int64).reshape(-1, 3)
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    first_rows = np.arange(0, len(rows), rows_per_micro_batch)
    row_bounds = np.concatenate(([0], np.cumsum(sizes)))
    row_numbers = np.repeat(np.arange(len(rows)) % rows_per_micro_batch, sizes)
    cuts = Cuts(parts[:, 1], parts[:, 2] + before, row_numbers.astype(np.int32))
    bounds = np.append(row_bounds[first_rows], row_bounds[-1])
    return WindowPlan(parts[:, 0], bounds, cuts)
