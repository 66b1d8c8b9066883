"""Read runs periodically, and show them in a terminal: one run, or a folder of runs.

::

    the run's folder, its job  ──poll──▶ RunFeed     the rows of `transloom status`, and one curve
    the folders of runs        ──poll──▶ FolderFeed  the table of `transloom runs`

A feed is a renderable of rich, which `rich.live.Live` redraws.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderResult
from rich.table import Table

from cluster.launchers.ray_job.job_summary import (
    JobSummary,
    is_run_or_submitted,
    status_with_job,
    with_job,
)
from foundation.shown_urls import problem_of, url_of
from foundation.terminal import shown
from foundation.untrusted_text import visible_line
from foundation.wording import counted
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from run_store.record.followed_run import FollowedRuns
from run_store.record.log import indented
from run_store.record.run_status import is_run, run_paths, run_status_of
from run_store.record.run_status_model import RunStatus
from transloom.observe.curves.curves import read_curves
from transloom.observe.terminal.fact_text import step_summary
from transloom.observe.terminal.run_status_text import (
    StatusRow,
    runs_table,
    scores_text,
    state_and_reason,
    status_rows,
    steps_text,
)

FOLDER_SECONDS = 5.0
CURVE_POINTS = 400
PLAIN_LINE_SECONDS = 10.0  # minimum time between two lines about steps
BLOCKS = "▁▂▃▄▅▆▇█"


class RunFeed:
    """Status of a run and its curve, from the run's folder.

    Attributes:
        run_status: the status of the run at the last poll.
        job: the run's job at the last poll, or None.
    """

    def __init__(self, path: Path, job: Callable[[], JobSummary | None] = lambda: None) -> None:
        """Read the run once.

        Args:
            job: returns the status of the run's job; None if the run has no job.
        """
        self.run = RunFolder(path)
        self._job_of = job
        self._curve: Sequence[float | None] = []
        self._drawn_step = -1  # the last step of the curve
        self._was_under_way = False
        self.poll()
        self._told: RunStatus | None = None  # the status at the last call of `changes`
        self._next_line = 0.0
        self._was_under_way = not self.is_over

    @property
    def is_over(self) -> bool:
        """True if no process is training the run, and no job will train it."""
        if self.job and not self.job.finished:
            return False
        state, owner = self.run_status.state, self.run_status.owner
        if self._was_under_way and state in ("damaged", "unknown") and owner is None:
            return not self.run.path.exists()  # storage may be unavailable for a moment
        return state != "training"

    def poll(self) -> None:
        """Read the run again."""
        self.job = self._job_of()
        self.run_status = with_job(run_status_of(self.run.path), self.job)
        step = self.run_status.step
        # Read the curve again only when there are enough new steps for one more point.
        if step < self._drawn_step or step - self._drawn_step > self._drawn_step / CURVE_POINTS:
            with suppress(OSError):  # the status reports the problem
                self._curve = read_curves(self.run, CURVE_POINTS).columns["loss"]
                self._drawn_step = step

    def changes(self) -> list[rich.console.RenderableType]:
        """Return a line per change since the last call; the first call returns the summary."""
        before, now, texts = self._told, self.run_status, list[str]()
        if before and not now.time and not self.is_over:  # the status cannot be read
            return []
        self._told = now
        if before is None:
            return [shown(self.summary())]
        if now.step > before.step and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_LINE_SECONDS
            summary = step_summary(lambda fact: now.value(fact.name), now.loss_form)
            texts.append(f"step {steps_text(now)}  {summary}")
        if now.scores_step not in (None, before.scores_step):
            texts.append(f"step {now.scores_step:,}: validation {scores_text(now)}")
        texts += [entry.text for entry in now.notices if entry not in before.notices]
        if now.state != before.state:
            texts.append(self.summary())
        return [shown(indented(text)) for text in texts]

    def rows(self, width: int, *, has_notices: bool = True) -> list[StatusRow]:
        """Return the rows of the status and of the curve.

        Args:
            width: the width of the terminal in cells.
            has_notices: include the last entries of the log.
        """
        known, path = self.run_status, self.run.path
        problems = known.problems if is_run(path) else []  # a waiting job has no run yet
        if outdated := problem_of(path):
            problems = [*problems, outdated]
        notices = known.notices if has_notices else []
        update = {"problems": problems, "notices": notices}
        rows = status_rows(known.model_copy(update=update), self.job)
        label = max(len(row.label) for row in rows)
        line = sparkline(self._curve, width - label - 2)
        after = next(n for n, row in enumerate(rows, start=1) if row.label == "step")
        if line:
            rows.insert(after, StatusRow("loss", line, "cyan"))
        return rows

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Lay out the rows, without the last ones if the terminal is too low for all."""
        yield shown((self.run.location, "bold"))
        yield status_grid(self.rows(options.max_width), console, options)

    def summary(self) -> str:
        """Return the state of the run in one line."""
        known = self.run_status
        owner = known.owner if known.state == "training" else None
        who = f", by process {owner.process} on {owner.host}" if owner else ""
        return f"{self.run.location}: step {steps_text(known)}, {state_and_reason(known)}{who}"

    def to_json(self) -> dict[str, Any]:
        """Return the complete status of the run as a dictionary for JSON."""
        return {
            "standing": self.run_status.model_dump(mode="json"),
            "job": self.job.to_json() if self.job else None,
        }


class FolderFeed:
    """Current status of the runs of a folder, the most recently changed one first."""

    def __init__(self, folder: Path) -> None:
        """List the runs and read each once.

        Raises:
            RunMismatchError: the folder does not exist.
        """
        self._folder = folder
        self._followed = FollowedRuns(status_with_job, _is_under_way)
        self._told: dict[Path, str] | None = None  # states at the last call of `changes`
        self._followed.refresh(self._list_runs())
        self._next_look = time.monotonic() + FOLDER_SECONDS

    def poll(self) -> None:
        """Read the runs that are training or have changed, at most every `FOLDER_SECONDS`."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + FOLDER_SECONDS
        with suppress(RunMismatchError):  # storage may be unavailable for a moment
            self._followed.refresh(self._list_runs())

    @property
    def is_over(self) -> bool:
        """True if no run is training, and no run waits for its job to train it."""
        return not any(map(_is_under_way, self._followed.summaries.values()))

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Lay out the table, without the oldest runs if the terminal is too low for all."""
        runs = self._newest_first()
        yield shown((self.summary(), "bold"))
        if problem := problem_of(self._folder):
            yield shown((problem, "red"))
        fit = runs if options.height is None else runs[: max(0, options.height - 4)]
        older = f"… {len(runs) - len(fit):,} older ones" if len(fit) < len(runs) else ""
        yield runs_table(fit, older)

    def summary(self) -> str:
        runs = self._followed.summaries
        under_way = sum(map(_is_under_way, runs.values()))
        title = url_of(self._folder) or self._folder
        return f"{title}: {counted(len(runs), 'run')}, {under_way:,} under way"

    def changes(self) -> list[rich.console.RenderableType]:
        """Return this table if it is new, or if a run's state has changed since the last call."""
        before = self._told
        self._told = {path: run.state for path, run in self._followed.summaries.items()}
        return [self] if self._told != before else []

    def to_json(self) -> list[dict[str, Any]]:
        """Return the status of each run as a dictionary for JSON."""
        return [run.model_dump(mode="json") for run in self._newest_first()]

    def _newest_first(self) -> list[RunStatus]:
        runs = self._followed.summaries.values()
        return sorted(runs, key=lambda run: (not _is_under_way(run), -run.time))

    def _list_runs(self) -> list[Path]:
        return run_paths(self._folder, ", a run, or the id of a job", is_run_or_submitted)


def _is_under_way(run: RunStatus) -> bool:
    return run.state in ("training", "waiting")


def status_grid(
    rows: Iterable[StatusRow], console: rich.console.Console, options: ConsoleOptions
) -> Table:
    """Return rows as a table, whose texts are cut to one line on a terminal."""
    rows, cuts = list(rows), console.is_terminal
    grid = Table.grid(padding=(0, 2, 0, 0))
    labels = min(max(cell_len(row.label) for row in rows), options.max_width // 2)
    texts = max(1, options.max_width - labels - 2)
    grid.add_column(no_wrap=True, style="bold", width=labels)
    grid.add_column(no_wrap=cuts, overflow="ellipsis" if cuts else "fold", max_width=texts)
    height = options.height or (options.size.height - 1 if cuts else None)
    for label, text, style in rows[: height and height - 1]:
        grid.add_row(shown(visible_line(label)), shown((visible_line(text), style)))
    return grid


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw values between the lowest and the highest one, in at most `width` characters.

    Values that are unknown or not finite are left out. If there are too many values, a character
    stands for the mean of several.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or width < 1:
        return ""
    columns = known
    if len(known) > width:
        with np.errstate(over="ignore"):  # the numbers of an untrusted record may overflow
            columns = [float(part.mean()) for part in np.array_split(known, width)]
    low, high = min(columns), max(columns)
    span, rounding = high - low, 1e-9 * max(abs(low), abs(high))
    if not rounding < span < math.inf:
        return BLOCKS[0] * len(columns)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / span * top)] for value in columns)
