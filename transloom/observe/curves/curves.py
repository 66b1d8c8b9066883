"""Read the curves of a run by seeking, so that a record of a million steps is never read whole.

::

    metrics.jsonl ─┬─ short, or a short part is requested: all of its lines        ─┐
                   ├─ long: small blocks at even distances                         ─├▶ points, marks
                   └─ long, and in the cache: its index, and the lines since then  ─┘

The record is the run's metrics file. The marks of a curve are the record's rare lines: validations,
events and skipped steps. Reading in blocks misses most marks, and the extremes between the blocks.
The index of `transloom.observe.curves.curve_index` contains both. Until `extend_index` has built
that index, the returned curves are marked as not complete.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainer.record.metrics_lines import Event, SkippedLine, TrainLine
from trainer.scores import Scores
from transloom.observe.curves.curve_index import CurveIndex, load_index
from transloom.observe.curves.curve_points import Points
from transloom.observe.curves.record_blocks import Lines, OpenRecord

# Maximum number of bytes to read for `MAX_POINTS` points, in addition to about 200 KB for finding
# byte positions. With this limit, all requests of a page about a run, plus the table of runs, read
# less than 5 MB in total.
MAX_READ_BYTES = 3_600_000
MAX_POINTS = 2_000
# A record, or a requested part of a record, up to this size is read whole, even if few points are
# requested. Only longer records get an index.
SHORT_BYTES = 400_000
# A block of this number of average lines contains two or three complete lines.
_LINES_PER_BLOCK = 3
_MIN_BLOCK_BYTES = 1_200


@dataclass(frozen=True)
class Curves:
    """Curves of a run, or of a range of its steps.

    Attributes:
        points: the points of the curves.
        validations: step and scores of each validation.
        events: events and skipped steps.
        steps_recorded: number of steps in the whole record.
        recorded_bytes: length in bytes of the record's complete lines.
        bytes_read: number of bytes read from the record and the cache.
        thinned: True if a point may represent several steps, including steps that were not read.
        complete: True if all marks and extremes of the range are included; False if the index is
            not built yet, or lacks some.
        problem: description of the first damaged line that was read; None if there was none.
    """

    points: Points
    validations: list[tuple[int, Scores]]
    events: list[Event | SkippedLine]
    steps_recorded: int = 0
    recorded_bytes: int = 0
    bytes_read: int = 0
    thinned: bool = False
    complete: bool = True
    problem: str | None = None

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """Lists of the same length by the names in `COLUMNS`; None is an unknown value."""
        return self.points.columns()


def read_curves(
    record: Path,
    points: int = MAX_POINTS,
    first_step: int | None = None,
    last_step: int | None = None,
    cache: Path | None = None,
) -> Curves:
    """Return the curves of a record; they are empty if the record does not exist.

    Args:
        record: the path of the metrics file.
        points: maximum number of points; for fewer points, fewer bytes are read.
        first_step, last_step: the range of steps; None leaves that end open.
        cache: the directory of indexes, which this function only reads; None uses no index.

    Raises:
        OSError: the record exists but cannot be read.
    """
    points = max(1, min(points, MAX_POINTS))
    try:
        opened = OpenRecord(record)
    except FileNotFoundError:
        return Curves(Points.none(), [], [])
    with opened:
        return _Reading(opened, points, first_step, last_step, cache).curves()


class _Reading:
    """Reader of one record for one call of `read_curves`."""

    def __init__(
        self,
        record: OpenRecord,
        points: int,
        first_step: int | None,
        last_step: int | None,
        cache: Path | None,
    ) -> None:
        self._record, self._points, self._cache = record, points, cache
        self._range = first_step, last_step
        self._parts: list[Points] = []
        self._found = Lines()  # used only to count damaged lines
        self._validations: list[tuple[int, Scores]] = []
        self._events: list[Event | SkippedLine] = []
        self._cache_bytes = self._left_out = 0
        self._complete = True

    def curves(self) -> Curves:
        record = self._record
        start, stop = record.span(*self._range)
        budget = max(SHORT_BYTES, MAX_READ_BYTES * self._points // MAX_POINTS)
        if stop - start > budget and self._cache:
            index = load_index(record, self._cache)
            if index and index.part.indexed_bytes > start:
                self._take_index(index)
                start = min(index.part.indexed_bytes, stop)
                budget = max(SHORT_BYTES, budget - index.file_bytes)
        if stop - start <= budget:
            for _, lines in record.chunks(start, stop):
                self._parts.append(Points.of_lines(lines.train))
                self._take_rare(lines)
        else:
            self._complete = False
            self._read_blocks(start, stop, budget)
        whole = Points.joined(self._parts).within(*self._range)
        thin = whole.thinned(self._points)
        return Curves(
            points=thin,
            validations=[pair for pair in self._validations if self._is_wanted(pair[0])],
            events=[line for line in self._events if self._is_wanted(line.step)],
            steps_recorded=_steps(record),
            recorded_bytes=record.end,
            bytes_read=record.bytes_read + self._cache_bytes,
            thinned=not (self._complete and thin.are_single_steps),
            complete=self._complete and not self._left_out,
            problem=self._problem(),
        )

    def _take_index(self, index: CurveIndex) -> None:
        part = index.part
        self._parts.append(index.points)
        self._validations += [(line.step, line.scores) for line in part.validations]
        self._events += part.events
        self._found.damaged, self._found.first_damage = part.damaged, part.first_damage
        self._cache_bytes, self._left_out = index.file_bytes, part.left_out

    def _take_rare(self, lines: Lines) -> None:
        self._validations += [(line.step, line.scores) for line in lines.validations]
        self._events += lines.events
        self._found.damaged += lines.damaged
        self._found.first_damage = self._found.first_damage or lines.first_damage

    def _read_blocks(self, start: int, stop: int, budget: int) -> None:
        """Read small, evenly spaced blocks of a byte range, and add one point per block.

        The first block starts at `start`, and the last one ends at `stop`.

        Args:
            budget: maximum total number of bytes in the blocks.
        """
        block = max(_MIN_BLOCK_BYTES, _LINES_PER_BLOCK * self._record.line_bytes)
        blocks = max(2, min(self._points, budget // block))
        train: list[TrainLine] = []
        groups: list[int] = []
        for place in np.linspace(start, stop - block, blocks).astype(int).tolist():
            lines = self._record.lines_within(place, place + block)
            train += lines.train
            groups += [place] * len(lines.train)
            self._take_rare(lines)
        self._parts.append(Points.of_lines(train).merged(np.array(groups)))

    def _is_wanted(self, step: int) -> bool:
        first, last = self._range
        return (first is None or step >= first) and (last is None or step <= last)

    def _problem(self) -> str | None:
        found, path = self._found, self._record.path
        if not found.damaged:
            return None
        more = f", and {found.damaged - 1:,} more that were read" if found.damaged > 1 else ""
        return (
            f"{path} has a damaged line {found.first_damage}{more}. Only the other lines are "
            "shown. Restore the file from a copy, or remove each damaged line"
        )


def _steps(record: OpenRecord) -> int:
    first, last = record.first_step, record.last_step
    if last is None:
        return 0
    return max(0, last - (first if first is not None else 1) + 1)
