"""The table of runs: rows are read again only if something in a run's folder has another time."""

import threading
from pathlib import Path

from trainer.record.run_snapshot import Signature, signatures_of
from trainer.runs.folder import RunFolder
from transloom.observe.dashboard.answers import RunRow, RunsAnswer
from transloom.observe.dashboard.run_answers import end_bytes, row_bytes, row_of
from transloom.observe.dashboard.runs_folder import RunsFolder


class RunsTable:
    """All rows, as they were found the last time; any thread may ask.

    Attributes:
        paths: the runs' folders by id.
    """

    def __init__(self, folder: RunsFolder) -> None:
        self._folder = folder
        self._rows: dict[str, tuple[tuple[Signature | None, ...], RunRow]] = {}
        self._problems: list[str] = []
        self._looking = threading.Lock()
        self._bytes_read = 0
        self.paths: dict[str, Path] = {}

    def answer(self) -> RunsAnswer:
        """The table as it is now; says how much was read since the last answer."""
        self.refresh()
        with self._looking:
            read, self._bytes_read = self._bytes_read, 0
            return RunsAnswer(
                folder=str(self._folder.path),
                problems=self._problems,
                bytes_read=read,
                runs=[self._rows[run][1] for run in self.paths],
            )

    def trains(self, run: str) -> bool:
        """Whether a run was training when it was looked at the last time."""
        found = self._rows.get(run)
        return found is not None and found[1].standing.state == "training"

    def refresh(self) -> list[RunRow]:
        """Look at the folder again; returns the rows that have changed."""
        with self._looking:
            self.paths, self._problems = self._folder.look()
            for gone in self._rows.keys() - self.paths.keys():
                del self._rows[gone]
            changed = []
            for run, path in self.paths.items():
                before = self._rows.get(run)
                signatures = signatures_of(RunFolder(path))
                trains = before is not None and before[1].standing.state == "training"
                if before and before[0] == signatures and not trains:
                    continue  # only a run that trains changes its state without a trace
                length = end_bytes(len(self.paths))
                row = row_of(path, length)
                self._bytes_read += row_bytes(path, length)
                self._rows[run] = signatures, row
                if before is None or before[1] != row:
                    changed.append(row)
            return changed
