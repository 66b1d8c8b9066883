"""A run as its folder tells of it, followed: for `transloom watch`.

::

    metrics.jsonl     each second, what was appended           ─┐
    vitals.json, log  each second, if they have changed         ├─▶ RunPicture
    owners/, checkpoints/, the job    every five seconds        ─┘

The folder may lie on storage that others write, so everything is polled and nothing is written.
What is half-written, replaced or damaged is told, and looked at again.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import RenderableType

from cluster.terminal import Terminal
from foundation.wording import steps_of
from trainer.checkpoints.condition import Checkpoints
from trainer.record.metrics import readable_lines
from trainer.record.records import Line
from trainer.record.run_snapshot import Signature, signature_of
from trainer.record.standing import Standing, is_run, standing_of
from trainer.runs.folder import RunFolder
from trainer.runs.log import LogEntry, last_entries
from trainer.runs.vitals import Vitals, are_current, read_vitals
from transloom.observe.terminal.live_picture import rendered
from transloom.observe.terminal.run_history import take_history
from transloom.observe.terminal.run_picture import CHECKPOINTS_SHOWN, JobPicture, RunPicture
from transloom.observe.terminal.time_words import clock

STANDING_SECONDS = 5.0

T = TypeVar("T")


class RunFeed:
    """Fills the picture of a run from its folder.

    Attributes:
        new_lines, new_entries: what the last look has found in the record and in the log.
    """

    def __init__(self, path: Path, job: Callable[[], JobPicture | None] = lambda: None) -> None:
        """
        Args:
            job: how the run's job stands; None if it has none.
        """
        self.run = RunFolder(path)
        self.picture = RunPicture(str(path))
        self.new_lines: list[Line] = []
        self.new_entries: list[LogEntry] = []
        self._job = job
        self._checkpoints = Checkpoints(self.run.checkpoints)
        self._signatures: dict[Path, Signature | None] = {}
        self._last_entry: LogEntry | None = None
        self._trouble: dict[Path, str] = {}  # what cannot be read, by file
        self._next_standing = 0.0
        self._tail = take_history(self.picture, self.run)
        self._record_problems = list(self.picture.problems)
        self._was_under_way = False
        self._standing = self._look_at_standing()
        self._was_under_way = not self.is_over
        self.look()
        self.new_lines, self.new_entries = [], []

    @property
    def is_over(self) -> bool:
        """Whether nobody trains the run, and no job is going to."""
        job, state = self.picture.job, self.picture.state
        if job and job.is_under_way:
            return False
        if state == "damaged" and self._was_under_way and self._standing.owner is None:
            return not self.run.path.exists()  # storage may be away for a moment
        return state != "training"

    def look(self) -> None:
        """Read what is new."""
        if time.monotonic() >= self._next_standing:
            # Before the record: an owner that has left has written all of it.
            self._standing = self._look_at_standing()
        self._look_at_record()
        self._look_at_log()
        self._look_at_vitals()

    def rendered(self, console: Terminal, height: int | None) -> RenderableType:
        """The picture for a console of so many rows; None for all that there is to see."""
        return rendered(console, self.picture, height)

    def summary(self) -> str:
        """How the run stands, in a line."""
        picture = self.picture
        waits = picture.job.waits_for if picture.job else None
        why = f": {picture.reason}" if picture.reason else f", for {waits}" if waits else ""
        owner = f", {picture.owner}" if picture.owner else ""
        steps = steps_of(picture.step, picture.max_steps)
        return f"{picture.title}: step {steps}, {picture.state}{why}{owner}"

    def standing(self) -> dict[str, Any]:
        """How the run stands, for scripts."""
        picture = self.picture
        return {
            "standing": standing_of(self.run.path).model_dump(mode="json"),
            "job": vars(picture.job) if picture.job else None,
            "vitals": picture.vitals.model_dump(mode="json") if picture.vitals else None,
            "vitals_are_current": picture.vitals_are_current,
            "checkpoints": [one.model_dump(mode="json") for one in picture.checkpoints],
        }

    def _look_at_standing(self) -> Standing:
        self._next_standing = time.monotonic() + STANDING_SECONDS
        picture, path = self.picture, self.run.path
        # The record is followed here, so none of it is read for the standing.
        standing = standing_of(path, record_bytes=0)
        picture.job = self._job()
        picture.state, picture.reason = standing.state, standing.reason
        if picture.job and picture.job.is_under_way and standing.state != "training":
            picture.state, picture.reason = picture.job.state, None
        picture.max_steps = standing.max_steps or picture.max_steps
        picture.smooths_labels = standing.smooths_labels
        picture.step = max(picture.step, standing.step)
        picture.nodes = standing.nodes
        picture.owner = _owner(standing)
        folder = self.run.checkpoints
        picture.checkpoints = self._tried(
            folder, lambda: self._checkpoints.newest(CHECKPOINTS_SHOWN), picture.checkpoints
        )
        problems = standing.problems if is_run(path) else []  # a job that waits has no run yet
        known = [*self._record_problems, *problems, *self._trouble.values()]
        picture.problems = list(dict.fromkeys(known))
        return standing

    def _look_at_record(self) -> None:
        path = self.run.metrics
        new = self._tried(path, self._tail.read, None)
        self.new_lines, unreadable = readable_lines(new.content) if new else ([], 0)
        if new is None:
            return
        if new.is_other:
            self.picture.forget_curves()
            self.picture.problems = [f"{path} was replaced or cut while it was watched"]
            self._tail = take_history(self.picture, self.run)
            self._record_problems = list(self.picture.problems)
            return
        problem = f"{path} has lines that are none of a record"
        if (unreadable or new.has_long_line) and problem not in self._record_problems:
            self._record_problems.append(problem)
        for line in self.new_lines:
            self.picture.line(line)

    def _look_at_log(self) -> None:
        self.new_entries = []
        if self._has_changed(self.run.log):
            none: list[LogEntry] = []
            entries = self._tried(self.run.log, lambda: last_entries(self.run.log), none)
            self.new_entries = _after(self._last_entry, entries)
            self.picture.notices.extend(self.new_entries)
            self._last_entry = entries[-1] if entries else self._last_entry

    def _look_at_vitals(self) -> None:
        picture, standing = self.picture, self._standing
        if self._has_changed(self.run.vitals):
            none: Vitals | None = None
            picture.vitals = self._tried(self.run.vitals, lambda: read_vitals(self.run), none)
        picture.vitals_are_current = bool(
            picture.vitals
            and standing.state == "training"
            and standing.owner
            and are_current(picture.vitals, standing.owner.since)
        )

    def _has_changed(self, path: Path) -> bool:
        """Whether a file is not as it was at the last look, by its size and time."""
        signature = signature_of(path)
        has_changed = self._signatures.get(path) != signature
        self._signatures[path] = signature
        return has_changed

    def _tried(self, what: Path, read: Callable[[], T], otherwise: T) -> T:
        """What can be read now, or else `otherwise` and a problem of this file."""
        try:
            found = read()
        except OSError as error:
            self._trouble[what] = f"{what} cannot be read: {error.strerror or error}"
        except ValueError:
            self._trouble[what] = f"{what} is damaged"
        else:
            self._trouble.pop(what, None)
            return found
        return otherwise


def _after(last: LogEntry | None, entries: list[LogEntry]) -> list[LogEntry]:
    """The entries that come after one of before; the log's end may have been cut off meanwhile."""
    if last in entries:
        return entries[len(entries) - entries[::-1].index(last) :]
    return [entry for entry in entries if last is None or entry.time > last.time]


def _owner(standing: Standing) -> str:
    owner = standing.owner
    if owner is None or standing.state != "training":
        return ""
    return f"by process {owner.process} on {owner.host}, since {clock(owner.since)}"
