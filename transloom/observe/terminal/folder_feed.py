"""Follow a folder of runs for `transloom watch`.

A run that is not training is read again only after one of its files has changed. For a finished
run, a poll therefore only checks the files' modification times.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from foundation.shown_urls import problem_of, url_of
from foundation.wording import counted
from trainer.errors import RunMismatchError
from trainer.record.followed_run import STATUS_SECONDS, FollowedRuns
from trainer.record.run_snapshot import Signature
from trainer.record.run_status import RECORD_BYTES_IN_LIST, is_run, run_paths, run_status_of
from transloom.observe.terminal.folder_picture import FolderRow, folder_picture
from transloom.observe.terminal.run_picture import JobPicture
from transloom.observe.terminal.run_status_text import scores_text, steps_text, time_text


class FolderFeed:
    """Current status of the runs of a folder, the most recently changed one first."""

    def __init__(
        self, folder: Path, job_of: Callable[[Path], JobPicture | None] = lambda run: None
    ) -> None:
        """List the runs and read each once.

        Args:
            job_of: returns the status of a run's job; None if the run has no job.

        Raises:
            RunMismatchError: the folder does not exist.
        """
        self._folder = folder
        self._job_of = job_of
        self._followed = FollowedRuns(self._known_of, lambda known: known.is_under_way)
        self._told: dict[Path, str] = {}  # states at the last call of `changes`
        self._next_look = 0.0
        self._list_runs()
        self.poll()
        self.changes()

    def poll(self) -> None:
        """Read the runs that are training or have changed, at most every `STATUS_SECONDS`."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + STATUS_SECONDS
        try:
            runs = self._list_runs()
        except RunMismatchError:  # storage may be unavailable for a moment
            return
        self._followed.refresh(runs)

    @property
    def _title(self) -> str:
        return url_of(self._folder) or str(self._folder)

    @property
    def _known(self) -> dict[Path, FolderRow]:
        return self._followed.summaries

    @property
    def is_over(self) -> bool:
        """True if no run is training, and no run waits for its job to train it."""
        return not any(known.is_under_way for known in self._known.values())

    def __rich__(self) -> RenderableType:
        return folder_picture(self._title, self._newest_first(), problem_of(self._folder))

    def summary(self) -> str:
        under_way = sum(known.is_under_way for known in self._known.values())
        return f"{self._title}: {counted(len(self._known), 'run')}, {under_way:,} under way"

    def changes(self) -> list[str]:
        """Return a line for each run whose state changed since the last call."""
        states = {run: known.state for run, known in self._known.items()}
        changed = [run for run, state in states.items() if self._told.get(run) != state]
        self._told = states
        return [_line(self._known[run]) for run in changed]

    def under_way(self) -> list[str]:
        """Return a line for each run that is training or waits for its job to train it."""
        return [_line(known) for known in self._newest_first() if known.is_under_way]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the status of each run as a dictionary for JSON."""
        return [known.run_status.model_dump(mode="json") for known in self._newest_first()]

    def _newest_first(self) -> list[FolderRow]:
        known = self._known.values()
        return sorted(known, key=lambda one: (not one.is_under_way, -one.changed))

    def _list_runs(self) -> list[Path]:
        return run_paths(
            self._folder,
            ", a run, or the id of a job",
            lambda path: is_run(path) or (path / "jobs").is_dir(),
        )

    def _known_of(self, path: Path, signatures: tuple[Signature | None, ...]) -> FolderRow:
        times = [signature[2] for signature in signatures if signature]
        return FolderRow(
            changed=max(times, default=0) / 1e9,
            run_status=run_status_of(path, RECORD_BYTES_IN_LIST),
            job=self._job_of(path) if (path / "jobs").is_dir() else None,
        )


def _line(known: FolderRow) -> str:
    run_status = known.run_status
    why = f": {run_status.reason}" if run_status.reason and not known.is_under_way else ""
    scores = scores_text(run_status)
    left = f", {time_text(run_status.seconds_left)} left" if run_status.seconds_left else ""
    behind = f", {scores}" if scores else ""
    return f"{run_status.name}: {known.state}{why}, step {steps_text(run_status)}{behind}{left}"
