"""Draw the runs of a folder as a table that fits a terminal: one row per run, newest first."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from foundation.untrusted_text import visible_line
from foundation.wording import counted
from trainer.record.facts import BY_NAME
from trainer.record.run_status_model import RunStatus
from transloom.observe.terminal.picture_layout import DONE, TO_DO, Picture, Row, cut, row
from transloom.observe.terminal.run_picture import JobPicture, state_with_job
from transloom.observe.terminal.run_status_text import steps_text, value_text
from transloom.observe.terminal.scores import score_text
from transloom.observe.terminal.tables import STATE_STYLES
from transloom.observe.terminal.time_format import clock

WIDEST_NAME = 40
BAR = 10
MIN_REASON = 20


@dataclass(frozen=True)
class FolderRow:
    """Row of the table for one run: its status when it was last read.

    Attributes:
        changed: time of the last change to the run's files, in seconds since the epoch.
    """

    changed: float
    run_status: RunStatus
    job: JobPicture | None

    @property
    def state(self) -> str:
        return state_with_job(self.run_status, self.job)

    @property
    def is_under_way(self) -> bool:
        return self.run_status.state == "training" or bool(self.job and self.job.is_under_way)


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: list[str]
    is_number: bool = False

    @property
    def width(self) -> int:
        return max(map(cell_len, [self.heading, *self.cells]))

    def texts(self) -> list[str]:
        """Return the heading and the cells, padded to the width of the column."""
        align = ">" if self.is_number else "<"
        texts = (f"{text:{align}{self.width}}" for text in (self.heading, *self.cells))
        return [set_cell_size(text, self.width) for text in texts]


def folder_picture(folder: str, rows: Sequence[FolderRow], problem: str | None = None) -> Picture:
    """Return the table for a terminal of any size.

    Args:
        problem: the reason why the table is outdated, or None.
    """
    return Picture(lambda console, width, height: _table(folder, rows, problem, width, height))


def _table(
    folder: str, rows: Sequence[FolderRow], problem: str | None, width: int, height: int | None
) -> list[Row]:
    states = Counter(one.state for one in rows)
    counts = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    runs = f"  {counted(len(rows), 'run')}{': ' if counts else ''}{counts}"
    picture = [row((folder, "bold"), runs, (f"  at {clock(time.time())}", "dim"))]
    if problem:
        picture.append(row((problem, "red")))
    space = len(rows) if height is None else max(0, height - len(picture) - 1)
    newest = rows if space >= len(rows) else rows[: max(0, space - 1)]
    styles = ["bold", *(STATE_STYLES.get(one.state, "") for one in newest)]
    columns = (column.texts() for column in _that_fit(_columns(newest), width))
    for *cells, style in zip(*columns, styles, strict=True):
        picture.append(row(("  ".join(cells), style)))
    if len(newest) < len(rows):
        picture.append(row((f"… {len(rows) - len(newest):,} older ones", "dim")))
    return picture[:height]


def _columns(rows: Sequence[FolderRow]) -> list[_Column]:
    """Return all columns from left to right, in descending order of importance."""
    runs = [one.run_status for one in rows]
    speed, left = BY_NAME["target_tokens_per_second"], BY_NAME["seconds_left"]
    return [
        _Column("run", [cut(row(run.name), WIDEST_NAME).plain for run in runs]),
        _Column("state", [one.state for one in rows]),
        _Column("step", [steps_text(run) for run in runs], is_number=True),
        _Column("newest score", [_score(run) for run in runs]),
        _Column(left.title, [value_text(run, left.name) for run in runs], is_number=True),
        _Column("progress", [_bar(run) for run in runs]),
        _Column(speed.title, [value_text(run, speed.name) for run in runs], is_number=True),
        _Column("changed", [clock(one.changed) for one in rows]),
        _Column("why", [visible_line((run.reason or "").split("\n")[0]) for run in runs]),
    ]


def _that_fit(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Return the leading columns that fit the width; skip columns whose cells are all empty."""
    fit: list[_Column] = []
    used = 0
    for column in columns:
        if fit and not any(column.cells):
            continue
        # The last column may be cut. On a very narrow terminal, the column of names may be cut too.
        needed = min(column.width, MIN_REASON) if column.heading == "why" else column.width
        if fit and used + needed > width:
            break
        fit.append(column)
        used += column.width + 2
    return fit


def _bar(run: RunStatus) -> str:
    if not run.max_steps:
        return ""
    done = round(BAR * min(1.0, run.step / run.max_steps))
    return DONE * done + TO_DO * (BAR - done)


def _score(run: RunStatus) -> str:
    """Return the last score of the newest validation, which tells a person the most."""
    if not run.scores:
        return ""
    name = list(run.scores)[-1]
    return visible_line(score_text(name, run.scores[name]))
