"""Table of runs: a row is read again only if a file of the run has changed."""

import threading
from pathlib import Path

from run_store.record.followed_run import FollowedRuns
from transloom.observe.dashboard.api_models import RunRow, RunsResponse
from transloom.observe.dashboard.run_responses import row_of
from transloom.observe.dashboard.runs_folder import RunsFolder


class RunsTable:
    """Table of runs with the rows as they were last read; callable from any thread.

    Attributes:
        paths: the runs' folders by run id.
    """

    def __init__(self, folder: RunsFolder) -> None:
        self._folder = folder
        self._rows = FollowedRuns(row_of, _trains)
        self._problems: list[str] = []
        self._changed: dict[str, RunRow] = {}  # rows changed since the last call of `refresh`
        self._looking = threading.Lock()
        self.paths: dict[str, Path] = {}

    def answer(self) -> RunsResponse:
        """Refresh and return the table."""
        with self._looking:
            is_first = not self._rows.summaries
            self._look()
            if is_first:
                self._changed.clear()
            return RunsResponse(
                folder=str(self._folder.path),
                problems=self._problems,
                runs=list(self._rows.summaries.values()),
            )

    def trains(self, run: str) -> bool:
        """Return whether a run was training when its row was last read."""
        path = self.paths.get(run)
        row = self._rows.summaries.get(path) if path else None
        return row is not None and _trains(row)

    def refresh(self) -> list[RunRow]:
        """Return the rows that have changed since the last call, or since the first answer."""
        with self._looking:
            self._look()
            changed, self._changed = self._changed, {}
            return [row for run, row in changed.items() if run in self.paths]

    def _look(self) -> None:
        """List the folder again, and read changed runs."""
        self.paths, self._problems = self._folder.list_runs()
        for row in self._rows.refresh(self.paths.values()):
            self._changed[row.id] = row


def _trains(row: RunRow) -> bool:
    return row.standing.state in ("training", "waiting")
