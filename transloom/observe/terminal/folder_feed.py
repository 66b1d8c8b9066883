"""A folder of runs, followed: for `transloom watch`.

A run that is not trained is read again only when a file of it has changed, so two hundred finished
ones cost a look at each.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from cluster.terminal import Terminal
from foundation.wording import counted
from trainer.errors import RunMismatchError
from trainer.record.followed_run import STANDING_SECONDS, FollowedRuns
from trainer.record.run_snapshot import Signature
from trainer.record.standing import BYTES_IN_A_LIST, RunStatus, is_run, run_paths, standing_of
from transloom.observe.terminal.folder_picture import FolderRow, folder_picture
from transloom.observe.terminal.run_picture import JobPicture, state_with_job
from transloom.observe.terminal.scores import score_text
from transloom.observe.terminal.standings import steps_text, time_text


@dataclass(frozen=True)
class _Known:
    """A run as it was read last."""

    changed: float
    standing: RunStatus
    job: JobPicture | None

    @property
    def state(self) -> str:
        return state_with_job(self.standing, self.job)

    @property
    def is_under_way(self) -> bool:
        return self.standing.state == "training" or bool(self.job and self.job.is_under_way)


class FolderFeed:
    """The runs of a folder as they stand, the one that changed last first."""

    def __init__(
        self, folder: Path, job_of: Callable[[Path], JobPicture | None] = lambda run: None
    ) -> None:
        """
        Args:
            job_of: how the job of a run stands; None if it has none.

        Raises:
            RunMismatchError: there is no such folder.
        """
        self._folder = folder
        self._job_of = job_of
        self._followed = FollowedRuns(self._known_of, lambda known: known.is_under_way)
        self._told: dict[Path, str] = {}  # the state of each run that was told last
        self._next_look = 0.0
        self._list_runs()
        self.look()
        self.changes()

    def look(self) -> None:
        """Read the runs that train or have changed."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + STANDING_SECONDS
        try:
            runs = self._list_runs()
        except RunMismatchError:  # storage may be away for a moment
            return
        self._followed.refresh(runs)

    @property
    def _known(self) -> dict[Path, _Known]:
        return self._followed.summaries

    @property
    def is_over(self) -> bool:
        """Whether no run trains, nor is going to."""
        return not any(known.is_under_way for known in self._known.values())

    def rendered(self, console: Terminal, height: int | None) -> RenderableType:
        rows = [
            FolderRow(
                name=known.standing.name,
                state=known.state,
                step=known.standing.step,
                max_steps=known.standing.max_steps,
                scores=known.standing.scores,
                tokens_per_second=known.standing.tokens_per_second,
                seconds_left=known.standing.seconds_left,
                changed=known.changed,
                remark=known.standing.reason or "",
            )
            for known in self._newest_first()
        ]
        return folder_picture(str(self._folder), rows, console, height)

    def summary(self) -> str:
        under_way = sum(known.is_under_way for known in self._known.values())
        return f"{self._folder}: {counted(len(self._known), 'run')}, {under_way:,} under way"

    def changes(self) -> list[str]:
        """A line for each run whose state is not the one that was told last."""
        states = {run: known.state for run, known in self._known.items()}
        changed = [run for run, state in states.items() if self._told.get(run) != state]
        self._told = states
        return [_line(self._known[run]) for run in changed]

    def under_way(self) -> list[str]:
        """A line for each run that trains or is going to."""
        return [_line(known) for known in self._newest_first() if known.is_under_way]

    def standings(self) -> list[dict[str, Any]]:
        """How the runs stand, for scripts."""
        return [known.standing.model_dump(mode="json") for known in self._newest_first()]

    def _newest_first(self) -> list[_Known]:
        known = self._known.values()
        return sorted(known, key=lambda one: (not one.is_under_way, -one.changed))

    def _list_runs(self) -> list[Path]:
        return run_paths(
            self._folder,
            ", a run, or the id of a job",
            lambda path: is_run(path) or (path / "jobs").is_dir(),
        )

    def _known_of(self, path: Path, signatures: tuple[Signature | None, ...]) -> _Known:
        times = [signature[2] for signature in signatures if signature]
        return _Known(
            changed=max(times, default=0) / 1e9,
            standing=standing_of(path, BYTES_IN_A_LIST),
            job=self._job_of(path) if (path / "jobs").is_dir() else None,
        )


def _line(known: _Known) -> str:
    standing = known.standing
    why = f": {standing.reason}" if standing.reason and not known.is_under_way else ""
    scores = ", ".join(score_text(name, score) for name, score in standing.scores.items())
    left = f", {time_text(standing.seconds_left)} left" if standing.seconds_left else ""
    behind = f", {scores}" if scores else ""
    return f"{standing.name}: {known.state}{why}, step {steps_text(standing)}{behind}{left}"
