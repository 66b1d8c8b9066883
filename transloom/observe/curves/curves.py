"""Read the curves of a run from its curve file, so that a long record is never read whole.

::

    curves.bin, or its copy in the cache  ── blocks ──▶ points, or steps of a short range ─┐
    metrics.jsonl, after these blocks     ── lines ────────────────────────────────────────┴▶ curves

The record is the run's metrics file. Only its owner writes the run's curve file. If that file is
missing, damaged or far behind the record, as in a run of an earlier version, readers build a copy
in their cache, once. The marks of a curve are validations, events and skipped steps.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated

from pydantic import Field, InstanceOf

from data_pipeline.storage.locations import private_cache
from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import MAX_COUNT, Count, FileModel
from run_store.errors import RunError
from run_store.folder import RunFolder
from run_store.record.curve_file import POINT_STEPS, CurveFile
from run_store.record.curve_points import Points
from run_store.record.line_blocks import BLOCK_STEPS, LineBlock, read_blocks

MAX_POINTS = 2_000
# Number of bytes of a record that a reader parses for each request. If the record has more bytes
# after the last block, the reader builds a curve file in the cache.
TAIL_BYTES = 2**21


class Curves(FileModel):
    """Curves of a run, or of a range of its steps.

    Attributes:
        points: the points of the range.
        lines: all lines of the record, except for those of steps that were applied.
        columns: the values of the points, by the names in `COLUMNS`; None is an unknown value.
        thinned: True if a point may represent several steps.
        steps_recorded: the last step of the whole record.
        recorded_bytes: length in bytes of the record's complete lines.
        bytes_read: number of bytes of the record and the curve file that were read.
        problem: description of damage to the record or the curve file; None if there is none.
    """

    points: Annotated[InstanceOf[Points], Field(exclude=True)] = Points.none()
    lines: Annotated[InstanceOf[LineBlock], Field(exclude=True)] = LineBlock()
    columns: dict[str, list[int | float | None]] = Points.none().columns()
    thinned: bool = False
    steps_recorded: Count = 0
    recorded_bytes: Count = 0
    bytes_read: Count = 0
    problem: str | None = None


def read_curves(
    run: RunFolder, points: int = MAX_POINTS, first_step: int = 0, last_step: int = MAX_COUNT
) -> Curves:
    """Return the curves of a run; they are empty if its record is no file.

    Args:
        points: maximum number of points.
        first_step, last_step: the range of steps that points cover.

    Raises:
        OSError: the record cannot be read.
    """
    if not run.metrics.is_file():
        return Curves()
    points = max(1, min(points, MAX_POINTS))
    file, problems = _curve_file(run)
    parts = [*_stored(file, points, first_step, last_step), *_appended(run, file)]
    lines = LineBlock.joined([block for _, block in parts])
    found = Points.joined(part for part, _ in parts).valid()
    thin = found.within(first_step, last_step).thinned(points)
    if lines.damaged:
        more = f", and {lines.damaged - 1:,} more" if lines.damaged > 1 else ""
        problems.append(
            f"{run.metrics} has a damaged line {lines.first_damage}{more}. Restore or remove it."
        )
    return Curves(
        points=thin,
        lines=lines,
        columns=thin.columns(),
        thinned=not thin.are_single_steps,
        steps_recorded=lines.last_step,
        recorded_bytes=lines.end,
        bytes_read=file.bytes_read + lines.end - file.record_end,
        problem=" ".join(problems) or None,
    )


def _stored(
    curves: CurveFile, points: int, first: int, last: int
) -> Iterator[tuple[Points, LineBlock]]:
    """Yield the points and the other lines of each block; a few blocks are read step by step.

    Steps are merged block by block, as far as a range has more than twice the points.
    """
    ends = [block.header.lines.last_step for block in curves.blocks]
    shown = [before < last and first <= end for before, end in zip([0, *ends], ends, strict=False)]
    # If the blocks have too few points, read their individual steps.
    are_few = 0 < 2 * sum(shown) * BLOCK_STEPS < points * POINT_STEPS
    width = max(1, (min(last, curves.last_step) - first) // (2 * points))
    with open_regular(curves.path) if are_few else nullcontext() as file:
        for block, is_shown in zip(curves.blocks, shown, strict=True):
            points_of_block = block.points
            if file and is_shown:
                points_of_block = block.read_steps(file.fileno()).by_width(width)
                curves.bytes_read += block.end - block.steps_at
            yield points_of_block, block.header.lines


def _appended(run: RunFolder, curves: CurveFile) -> Iterator[tuple[Points, LineBlock]]:
    """Yield the points and the lines of the record after the blocks of a curve file."""
    for number, block in enumerate(read_blocks(run.metrics, curves.record_end, curves.last_step)):
        points = Points.of_lines(block.train)
        block.steps.clear()
        is_long = number * BLOCK_STEPS > MAX_POINTS * POINT_STEPS
        yield points.by_width(POINT_STEPS) if is_long else points, block


def _curve_file(run: RunFolder) -> tuple[CurveFile, list[str]]:
    """Return the run's curve file, or its copy in the cache, and problems."""
    curves, problems = CurveFile(run.curves, run.metrics), list[str]()
    if _is_behind(curves, run):
        if curves.problem and run.curves.exists():
            problems.append(
                f"{run.curves} is damaged {curves.problem}. Remove the file, or resume the run."
            )
        try:
            name = hashlib.sha256(os.fsencode(run.metrics.resolve())).hexdigest()[:32]
            path = private_cache("curves") / f"{name}.bin"
            curves = CurveFile(path, run.metrics)
            if _is_behind(curves, run):
                with path.open("ab") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # only one reader extends the copy at a time
                    CurveFile(path, run.metrics).extend()
                curves = CurveFile(path, run.metrics)
        except (OSError, RunError) as error:
            problems.append(f"No curve file can be built: {error}.")
    return curves, problems


def _is_behind(curves: CurveFile, run: RunFolder) -> bool:
    return run.metrics.stat().st_size - curves.record_end > TAIL_BYTES
