"""Incremental readers of run folders, for views that stay open.

::

    metrics.jsonl            lines that were appended        ─┐
    vitals.json, log.txt     if they have changed             ├─▶ FollowedRun   one run
    owners/, checkpoints/    every `STATUS_SECONDS`          ─┘

    signatures of the files of each run   ─▶ FollowedRuns   a folder of runs

The storage may be shared, so the readers poll everything and write nothing. They report a file that
is half-written, replaced or damaged as a problem, and read the file again later.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from trainer.checkpoints.checkpoint_status import CheckpointFolder, CheckpointStatus
from trainer.record.line_reader import LineTail, readable_lines
from trainer.record.metrics_lines import Line, parse_line
from trainer.record.run_snapshot import Signature, signature_of, signatures_of
from trainer.record.run_status import is_run, run_status_of
from trainer.runs.folder import RunFolder
from trainer.runs.log import LogEntry, last_entries
from trainer.runs.vitals import Vitals, are_current, read_vitals

STATUS_SECONDS = 5.0
TAIL_BYTES = 2**18  # holds about 300 steps; earlier lines are never read
READ_BYTES = 2**22  # maximum that one read of a metrics file returns

T = TypeVar("T")


class FollowedRun:
    """State of a run at the last `read`, from its folder.

    Attributes:
        run_status: the status of the run, without the values that need the metrics file.
        checkpoints: the newest checkpoints, newest first.
        vitals: the vitals, or None without a readable vitals.json.
        new_lines: the lines that the last read found in the metrics file.
        new_entries: the entries that the last read found in the log.
        is_other_record: whether the metrics file was replaced or cut between the last two reads. If
            so, `new_lines` is the end of the new content.
        record_problems: descriptions of damage in the metrics file since the first read, or since
            the file was last replaced.
    """

    def __init__(self, run: RunFolder, most_checkpoints: int) -> None:
        self.run = run
        self.run_status = run_status_of(run.path, record_bytes=0)
        self.checkpoints: list[CheckpointStatus] = []
        self.vitals: Vitals | None = None
        self.new_lines: list[Line] = []
        self.new_entries: list[LogEntry] = []
        self.is_other_record = False
        self.record_problems: list[str] = []
        self._most_checkpoints = most_checkpoints
        self._checkpoints = CheckpointFolder(run.checkpoints)
        self._tail = LineTail(run.metrics, tail_bytes=TAIL_BYTES, read_bytes=READ_BYTES)
        self._signatures: dict[Path, Signature | None] = {}
        self._last_entry: LogEntry | None = None
        self._unreadable: dict[Path, str] = {}  # description of the problem, by file
        self._has_read_record = False
        self._next_status = 0.0

    @property
    def vitals_are_current(self) -> bool:
        """True if the process that trains the run wrote the vitals."""
        owner = self.run_status.owner if self.run_status.state == "training" else None
        return bool(self.vitals and owner and are_current(self.vitals, owner.since))

    @property
    def problems(self) -> list[str]:
        """Descriptions of all unreadable files."""
        # The folder of a waiting job is not a run folder yet.
        of_folder = self.run_status.problems if is_run(self.run.path) else []
        known = [*self.record_problems, *of_folder, *self._unreadable.values()]
        return list(dict.fromkeys(known))

    def read(self) -> None:
        """Read everything that has changed since the last read."""
        if time.monotonic() >= self._next_status:
            # Read the status before the metrics file. If the status shows that the owner has left,
            # the metrics file is complete.
            self._read_status()
        self._read_record()
        self._read_log()
        if self._has_changed(self.run.vitals):
            self.vitals = self._tried(self.run.vitals, lambda: read_vitals(self.run), None)

    def _read_status(self) -> None:
        self._next_status = time.monotonic() + STATUS_SECONDS
        self.run_status = run_status_of(self.run.path, record_bytes=0)
        self.checkpoints = self._tried(
            self.run.checkpoints,
            lambda: self._checkpoints.newest(self._most_checkpoints),
            self.checkpoints,
        )

    def _read_record(self) -> None:
        path = self.run.metrics
        self.new_lines, self.is_other_record = [], False
        new = self._tried(path, self._tail.read, None)
        if new is None:
            return
        self.new_lines, unreadable = readable_lines(new.content, parse_line)
        self.is_other_record = new.is_other
        is_appended, self._has_read_record = self._has_read_record, True
        if new.is_other:
            self.record_problems = [f"{path} was replaced or cut while it was watched"]
        elif is_appended and (unreadable or new.has_long_line):
            problem = f"{path} has lines that cannot be read"
            if problem not in self.record_problems:
                self.record_problems.append(problem)

    def _read_log(self) -> None:
        self.new_entries = []
        if self._has_changed(self.run.log):
            log = self.run.log
            entries = self._tried(log, lambda: last_entries(log), list[LogEntry]())
            self.new_entries = _after(self._last_entry, entries)
            self._last_entry = entries[-1] if entries else self._last_entry

    def _has_changed(self, path: Path) -> bool:
        signature = signature_of(path)
        has_changed = self._signatures.get(path) != signature
        self._signatures[path] = signature
        return has_changed

    def _tried(self, what: Path, read: Callable[[], T], otherwise: T) -> T:
        """Return the result of `read`.

        If it fails, store the problem with `what`, return `otherwise`.
        """
        try:
            found = read()
        except OSError as error:
            self._unreadable[what] = f"{what} cannot be read: {error.strerror or error}"
        except ValueError:
            self._unreadable[what] = f"{what} is damaged"
        else:
            self._unreadable.pop(what, None)
            return found
        return otherwise


class FollowedRuns(Generic[T]):
    """Summaries of many runs, each recomputed only if the run may have changed.

    Attributes:
        summaries: the summaries by the folder of the run.
    """

    def __init__(
        self,
        summarize: Callable[[Path, tuple[Signature | None, ...]], T],
        is_active: Callable[[T], bool],
    ) -> None:
        """Start without summaries.

        Args:
            summarize: computes a summary from the folder of a run and the signatures of its files.
            is_active: returns True for a run whose state may change while its files stay the same,
                such as a run that is being trained.
        """
        self.summaries: dict[Path, T] = {}
        self._summarize, self._is_active = summarize, is_active
        self._signatures: dict[Path, tuple[Signature | None, ...]] = {}

    def refresh(self, paths: Iterable[Path]) -> list[T]:
        """Summarize these runs, forget all others, and return the summaries that have changed."""
        summaries: dict[Path, T] = {}
        signatures: dict[Path, tuple[Signature | None, ...]] = {}
        changed = []
        for path in paths:
            known, signatures[path] = self.summaries.get(path), signatures_of(RunFolder(path))
            is_same = self._signatures.get(path) == signatures[path]
            if known is not None and is_same and not self._is_active(known):
                summaries[path] = known
                continue
            summaries[path] = self._summarize(path, signatures[path])
            if summaries[path] != known:
                changed.append(summaries[path])
        self.summaries, self._signatures = summaries, signatures
        return changed


def _after(last: LogEntry | None, entries: list[LogEntry]) -> list[LogEntry]:
    """Return the entries after the entry `last`, or all entries if `last` is None.

    If the log was truncated, it may no longer have the entry `last`. In this case, the entries with
    a later time are returned.
    """
    if last in entries:
        return entries[len(entries) - entries[::-1].index(last) :]
    return [entry for entry in entries if last is None or entry.time > last.time]
