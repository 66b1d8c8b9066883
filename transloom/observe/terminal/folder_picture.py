"""Draw the runs of a folder as a table that fits a terminal: one row per run, newest first."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group

from cluster.terminal import Terminal
from foundation.untrusted_text import visible_line
from foundation.wording import counted
from trainer.record.facts import BY_NAME
from trainer.record.run_status_model import RunStatus
from transloom.observe.terminal.live_picture import glyphs_of
from transloom.observe.terminal.picture_layout import Glyphs, Row, cut, drawn, padded
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


def folder_picture(
    folder: str,
    rows: Sequence[FolderRow],
    console: Terminal,
    height: int | None,
    problem: str | None = None,
) -> Group:
    """Return the table for a console, in at most `height` rows; None for any number of rows.

    Args:
        problem: the reason why the table is outdated, or None.
    """
    width, glyphs = console.width, glyphs_of(console)
    states = Counter(row.state for row in rows)
    counts = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    head: Row = [(visible_line(folder), "bold"), (f"  {counted(len(rows), 'run')}", "")]
    head.append((f": {counts}" if counts else "", ""))
    head.append((f"  at {clock(time.time())}", "dim"))
    problems: list[Row] = (
        [cut([(visible_line(problem), "red")], width, glyphs.dots)] if problem else []
    )
    room = len(rows) if height is None else max(0, height - 2 - len(problems))
    newest = list(rows)
    if room < len(rows):
        newest = newest[: max(0, room - 1)]
    columns = _that_fit(_columns(newest, glyphs), width)
    picture = [head, *problems, _row([padded(c.heading, c.width) for c in columns], "bold")]
    for number, row in enumerate(newest):
        cells = [
            f"{c.cells[number]:>{c.width}}" if c.is_number else padded(c.cells[number], c.width)
            for c in columns
        ]
        picture.append(_row(cells, STATE_STYLES.get(row.state, "")))
    if len(newest) < len(rows):
        picture.append([(f"{glyphs.dots} {len(rows) - len(newest):,} older ones", "dim")])
    return drawn(picture[:height], width, glyphs.dots)


def _columns(rows: Sequence[FolderRow], glyphs: Glyphs) -> list[_Column]:
    """Return all columns from left to right, in descending order of importance."""
    runs = [row.run_status for row in rows]
    names = [cut([(visible_line(run.name), "")], WIDEST_NAME, glyphs.dots)[0][0] for run in runs]
    speed, left = BY_NAME["target_tokens_per_second"], BY_NAME["seconds_left"]
    return [
        _Column("run", names),
        _Column("state", [row.state for row in rows]),
        _Column("step", [steps_text(run) for run in runs], is_number=True),
        _Column("newest score", [_score(run) for run in runs]),
        _Column(left.title, [value_text(run, left.name) for run in runs], is_number=True),
        _Column("progress", [_bar(run, glyphs) for run in runs]),
        _Column(speed.title, [value_text(run, speed.name) for run in runs], is_number=True),
        _Column("changed", [clock(row.changed) for row in rows]),
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


def _row(cells: Sequence[str], style: str) -> Row:
    return [("  ".join(cells).rstrip(), style)]


def _bar(run: RunStatus, glyphs: Glyphs) -> str:
    if not run.max_steps:
        return ""
    done = round(BAR * min(1.0, run.step / run.max_steps))
    return glyphs.done * done + glyphs.to_do * (BAR - done)


def _score(run: RunStatus) -> str:
    """Return the last score of the newest validation, which tells a person the most."""
    if not run.scores:
        return ""
    name = list(run.scores)[-1]
    return visible_line(score_text(name, run.scores[name]))
