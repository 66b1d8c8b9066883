"""The picture of a run that is followed by its folder: for `transloom watch`.

::

    FollowedRun    what is new in the folder   ─┐
                                                ├─▶ RunPicture
    the job of the run                         ─┘
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from cluster.terminal import Terminal
from foundation.wording import steps_of
from trainer.record.followed_run import FollowedRun
from trainer.record.records import Line
from trainer.record.standing import RunStatus, standing_of
from trainer.runs.folder import RunFolder
from trainer.runs.log import LogEntry
from transloom.observe.terminal.live_picture import rendered
from transloom.observe.terminal.run_history import take_history
from transloom.observe.terminal.run_picture import (
    CHECKPOINTS_SHOWN,
    JobPicture,
    RunPicture,
    state_with_job,
)
from transloom.observe.terminal.time_words import clock


class RunFeed:
    """Fills the picture of a run from its folder.

    Attributes:
        new_lines: the lines that the last look found in the record.
        new_entries: the entries that the last look found in the log.
    """

    def __init__(self, path: Path, job: Callable[[], JobPicture | None] = lambda: None) -> None:
        """
        Args:
            job: returns the state of the run's job; None if it has none.
        """
        self.run = RunFolder(path)
        self.picture = RunPicture(str(path))
        self._job = job
        self._followed = FollowedRun(self.run, CHECKPOINTS_SHOWN)
        self._standing: RunStatus | None = None  # the one that the picture shows
        self._was_under_way = False
        self._take_history()
        self.look()
        self._was_under_way = not self.is_over
        self.new_lines: list[Line] = []
        self.new_entries: list[LogEntry] = []

    @property
    def is_over(self) -> bool:
        """True if nobody trains the run, and no job is going to."""
        job, state = self.picture.job, self.picture.state
        if job and job.is_under_way:
            return False
        if state == "damaged" and self._was_under_way and self._followed.standing.owner is None:
            return not self.run.path.exists()  # storage may be away for a moment
        return state != "training"

    def look(self) -> None:
        """Read what is new."""
        followed, picture = self._followed, self.picture
        followed.read()
        self.new_lines, self.new_entries = followed.new_lines, followed.new_entries
        if self._standing is not followed.standing:
            self._take_standing(followed.standing)
        if followed.is_other_record:
            picture.forget_curves()
            self._take_history()
        for line in followed.new_lines:
            picture.line(line)
        picture.notices.extend(followed.new_entries)
        picture.checkpoints = followed.checkpoints
        picture.vitals = followed.vitals
        picture.vitals_are_current = followed.vitals_are_current
        picture.problems = followed.problems

    def rendered(self, console: Terminal, height: int | None) -> RenderableType:
        """Return the picture for a console of this many rows; None for the whole picture."""
        return rendered(console, self.picture, height)

    def summary(self) -> str:
        """Return the state of the run in one line."""
        picture = self.picture
        waits = picture.job.waits_for if picture.job else None
        why = f": {picture.reason}" if picture.reason else f", for {waits}" if waits else ""
        owner = f", {picture.owner}" if picture.owner else ""
        steps = steps_of(picture.step, picture.max_steps)
        return f"{picture.title}: step {steps}, {picture.state}{why}{owner}"

    def standing(self) -> dict[str, Any]:
        """Return the state of the run, for scripts."""
        picture = self.picture
        return {
            "standing": standing_of(self.run.path).model_dump(mode="json"),
            "job": vars(picture.job) if picture.job else None,
            "vitals": picture.vitals.model_dump(mode="json") if picture.vitals else None,
            "vitals_are_current": picture.vitals_are_current,
            "checkpoints": [one.model_dump(mode="json") for one in picture.checkpoints],
        }

    def _take_history(self) -> None:
        self._followed.record_problems += take_history(self.picture, self.run)

    def _take_standing(self, standing: RunStatus) -> None:
        self._standing, picture = standing, self.picture
        picture.job = self._job()
        picture.state = state_with_job(standing, picture.job)
        picture.reason = standing.reason if picture.state == standing.state else None
        picture.max_steps = standing.max_steps or picture.max_steps
        picture.smooths_labels = standing.smooths_labels
        picture.step = max(picture.step, standing.step)
        picture.nodes = standing.nodes
        picture.owner = _owner(standing)


def _owner(standing: RunStatus) -> str:
    owner = standing.owner
    if owner is None or standing.state != "training":
        return ""
    return f"by process {owner.process} on {owner.host}, since {clock(owner.since)}"
