"""Keep the picture of a run for `transloom watch` up to date from the run's folder.

::

    FollowedRun    changes in the folder       ─┐
                                                ├─▶ RunPicture
    the job of the run                         ─┘
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from foundation.shown_urls import problem_of, url_of, with_urls
from foundation.wording import counted, steps_of
from trainer.errors import RunMismatchError
from trainer.record.followed_run import STATUS_SECONDS, FollowedRun, FollowedRuns
from trainer.record.metrics_lines import Line
from trainer.record.run_snapshot import Signature
from trainer.record.run_status import RECORD_BYTES_IN_LIST, is_run, run_paths, run_status_of
from trainer.record.run_status_model import RunStatus
from trainer.runs.folder import RunFolder
from trainer.runs.log import LogEntry
from transloom.observe.terminal.folder_picture import FolderRow, folder_picture
from transloom.observe.terminal.picture_blocks import drawn
from transloom.observe.terminal.run_picture import (
    CHECKPOINTS_SHOWN,
    JobPicture,
    RunPicture,
    state_with_job,
    take_history,
)
from transloom.observe.terminal.run_status_text import scores_text, steps_text, time_text
from transloom.observe.terminal.time_format import clock


class RunFeed:
    """Updater of a run's picture from the run's folder.

    Attributes:
        new_lines: lines of the record that the last poll found.
        new_entries: entries of the log that the last poll found.
    """

    def __init__(self, path: Path, job: Callable[[], JobPicture | None] = lambda: None) -> None:
        """Read the run once.

        Args:
            job: returns the status of the run's job; None if the run has no job.
        """
        self.run = RunFolder(path)
        self.picture = RunPicture(self.run.location)
        self._job = job
        self._followed = FollowedRun(self.run, CHECKPOINTS_SHOWN)
        self._run_status: RunStatus | None = None  # the status that the picture shows
        self._was_under_way = False
        self._take_history()
        self.poll()
        self._was_under_way = not self.is_over
        self.new_lines: list[Line] = []
        self.new_entries: list[LogEntry] = []

    @property
    def is_over(self) -> bool:
        """True if no process is training the run, and no job will train it."""
        job, state = self.picture.job, self.picture.state
        if job and job.is_under_way:
            return False
        if state == "damaged" and self._was_under_way and self._followed.run_status.owner is None:
            return not self.run.path.exists()  # storage may be unavailable for a moment
        return state != "training"

    def poll(self) -> None:
        """Read the new lines and files in the run's folder, and update the picture."""
        followed, picture = self._followed, self.picture
        followed.read()
        self.new_lines, self.new_entries = followed.new_lines, followed.new_entries
        if self._run_status is not followed.run_status:
            self._take_status(followed.run_status)
        if followed.is_other_record:
            picture.forget_curves()
            self._take_history()
        for line in followed.new_lines:
            picture.line(line)
        picture.notices.extend(followed.new_entries)
        picture.checkpoints = followed.checkpoints
        picture.vitals = followed.vitals
        picture.vitals_are_current = followed.vitals_are_current
        outdated = problem_of(self.run.path)
        picture.problems = [*map(with_urls, followed.problems), *([outdated] if outdated else [])]

    def __rich__(self) -> RenderableType:
        return drawn(self.picture)

    def summary(self) -> str:
        """Return the state of the run in one line."""
        picture = self.picture
        waits = picture.job.waits_for if picture.job else None
        why = f": {picture.reason}" if picture.reason else f", for {waits}" if waits else ""
        owner = f", {picture.owner}" if picture.owner else ""
        steps = steps_of(picture.step, picture.max_steps)
        return f"{picture.title}: step {steps}, {picture.state}{why}{owner}"

    def to_json(self) -> dict[str, Any]:
        """Return the complete status of the run as a dictionary for JSON."""
        picture = self.picture
        return {
            "standing": run_status_of(self.run.path).model_dump(mode="json"),
            "job": vars(picture.job) if picture.job else None,
            "vitals": picture.vitals.model_dump(mode="json") if picture.vitals else None,
            "vitals_are_current": picture.vitals_are_current,
            "checkpoints": [one.model_dump(mode="json") for one in picture.checkpoints],
        }

    def _take_history(self) -> None:
        self._followed.record_problems += take_history(self.picture, self.run)

    def _take_status(self, run_status: RunStatus) -> None:
        self._run_status, picture = run_status, self.picture
        picture.job = self._job()
        picture.state = state_with_job(run_status, picture.job)
        picture.reason = run_status.reason if picture.state == run_status.state else None
        picture.max_steps = run_status.max_steps or picture.max_steps
        picture.loss_form = run_status.loss_form
        picture.step = max(picture.step, run_status.step)
        picture.nodes = run_status.nodes
        picture.owner = _owner(run_status)


def _owner(run_status: RunStatus) -> str:
    owner = run_status.owner
    if owner is None or run_status.state != "training":
        return ""
    return f"by process {owner.process} on {owner.host}, since {clock(owner.since)}"


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
