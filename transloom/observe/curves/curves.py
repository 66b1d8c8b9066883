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

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainer.record.metrics_lines import Event, SkippedLine
from transloom.observe.curves.curve_index import CurveIndex, IndexedPart, load_index
from transloom.observe.curves.curve_points import Points
from transloom.observe.curves.record_blocks import Lines, OpenRecord, ScoredStep

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
        validations: the validations that were read.
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
    validations: list[ScoredStep]
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
        found, is_read_whole = _read(opened, *opened.span(first_step, last_step), points, cache)
    first = -math.inf if first_step is None else first_step
    last = math.inf if last_step is None else last_step
    part = found.part
    thin = found.points.within(first, last).thinned(points)
    return Curves(
        points=thin,
        validations=[scored for scored in part.validations if first <= scored.step <= last],
        events=[line for line in part.events if first <= line.step <= last],
        steps_recorded=_steps(opened),
        recorded_bytes=opened.end,
        bytes_read=opened.bytes_read + found.file_bytes,
        thinned=not (is_read_whole and thin.are_single_steps),
        complete=is_read_whole and not part.left_out,
        problem=_problem(record, part),
    )


def _read(
    record: OpenRecord, start: int, stop: int, points: int, cache: Path | None
) -> tuple[CurveIndex, bool]:
    """Return the content of a byte range as an index, and True if all of the range was read.

    If the range is long, the result also has the earlier lines of the index in the cache.
    """
    budget = max(SHORT_BYTES, MAX_READ_BYTES * points // MAX_POINTS)
    found = load_index(record, cache) if cache and stop - start > budget else None
    if found and found.part.indexed_bytes > start:
        start = min(found.part.indexed_bytes, stop)
        budget = max(SHORT_BYTES, budget - found.file_bytes)
    else:
        found = CurveIndex()
    if stop - start > budget:
        found.add(*_read_blocks(record, start, stop, points, budget), stop)
        return found, False
    for end, lines in record.chunks(start, stop):
        found.add(lines, Points.of_lines(lines.train), end)
    return found, True


def _read_blocks(
    record: OpenRecord, start: int, stop: int, points: int, budget: int
) -> tuple[Lines, Points]:
    """Read small, evenly spaced blocks of a byte range; return the lines and one point per block.

    The first block starts at `start`, and the last one ends at `stop`.

    Args:
        budget: maximum total number of bytes in the blocks.
    """
    block = max(_MIN_BLOCK_BYTES, _LINES_PER_BLOCK * record.line_bytes)
    blocks = max(2, min(points, budget // block))
    lines = Lines()
    groups: list[int] = []
    for place in np.linspace(start, stop - block, blocks).astype(int).tolist():
        record.read_lines(place, place + block, lines)
        groups += [place] * (len(lines.train) - len(groups))
    return lines, Points.of_lines(lines.train).merged(np.array(groups))


def _problem(record: Path, part: IndexedPart) -> str | None:
    if not part.damaged:
        return None
    more = f", and {part.damaged - 1:,} more that were read" if part.damaged > 1 else ""
    return (
        f"{record} has a damaged line {part.first_damage}{more}. Only the other lines are shown. "
        "Restore the file from a copy, or remove each damaged line"
    )


def _steps(record: OpenRecord) -> int:
    first, last = record.first_step, record.last_step
    if last is None:
        return 0
    return max(0, last - (first if first is not None else 1) + 1)
