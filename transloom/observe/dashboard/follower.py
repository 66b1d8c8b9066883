"""Send changes of the runs to all pages, from one poller that reads appended lines.

::

    records of training runs ── twice per step, every 0.1 to 2 s ──▶ event "steps"
    files of all runs        ── every 3 s, file metadata only    ──▶ event "runs"

The poller works only while a page is subscribed. It opens a record again for each poll. If the
record stayed open, shared storage would not show the appended lines, and another file could not
replace the record.
"""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path

from foundation.periodic_thread import ExceptionLog
from run_store.errors import RunError
from run_store.folder import RunFolder
from run_store.record.curve_points import Points
from run_store.record.line_blocks import LineBlock, scored_steps
from run_store.record.line_reader import LineTail
from transloom.observe.dashboard.api_models import CurvesChanged, NewRuns, NewSteps
from transloom.observe.dashboard.page_subscribers import PageSubscribers
from transloom.observe.dashboard.run_responses import marks_of
from transloom.observe.dashboard.table import RunsTable

FASTEST_SECONDS = 0.1
SLOWEST_SECONDS = 2.0
ROWS_SECONDS = 3.0


class Tail:
    """Reader of the lines appended to a record, which also schedules its reads.

    Attributes:
        step_seconds: duration of the last step that was read.
        due: time of the next read, in seconds of the monotonic clock.
        begins_at_end: whether reading began at the end of the record, because no page had sent a
            position.
    """

    def __init__(self, record: Path, position: int | None = None) -> None:
        """Start at a position of the record.

        Args:
            position: byte position after the last line that a page already has. None starts at the
                end of the record, because pages request all earlier lines themselves.
        """
        self.step_seconds = 1.0  # assumed until a step is read
        self.due = 0.0
        self.begins_at_end = position is None
        self._lines = LineTail(record, position)

    def read(self) -> tuple[LineBlock, bool]:
        """Return the appended lines, and True if another file has replaced the record."""
        new = self._lines.read()
        found = LineBlock()
        for text in new.content.split(b"\n")[:-1]:
            found.add(text)
        if found.train:
            self.step_seconds = found.train[-1].step_seconds
        return found, new.is_other

    @property
    def wait_seconds(self) -> float:
        """Seconds between two reads: half the duration of a step, within limits."""
        return min(max(self.step_seconds / 2, FASTEST_SECONDS), SLOWEST_SECONDS)


class Follower:
    """Publisher of changed rows and new steps to the subscribed pages."""

    def __init__(self, table: RunsTable, subscribers: PageSubscribers) -> None:
        """Start following the runs; requires a running event loop."""
        self._table, self._subscribers = table, subscribers
        self._tails: dict[str, Tail] = {}
        self._exceptions = ExceptionLog("the dashboard")
        self._rows_due = 0.0
        self._wakes = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def wake(self) -> None:
        """Start polling, because a page has subscribed."""
        self._wakes.set()

    def expect(self, run: str, record: Path, position: int) -> None:
        """Follow a run from the byte position up to which a page has received its curves.

        If the run is already followed from the position of another subscribed page, it continues
        from there. If it was followed from the end of the record, it is read again from this
        page's position: lines may have been appended before that end was read.
        """
        tail = self._tails.get(run)
        if tail is None or tail.begins_at_end or not len(self._subscribers):
            self._tails[run] = Tail(record, position)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            if not len(self._subscribers):
                self._tails.clear()
                self._wakes.clear()
                await self._wakes.wait()
            if time.monotonic() >= self._rows_due:
                await self._attempt(self._refresh_rows())
                self._rows_due = time.monotonic() + ROWS_SECONDS
            for run, tail in list(self._tails.items()):
                if tail.due <= time.monotonic():
                    await self._attempt(self._read(run, tail))
            upcoming = [tail.due for tail in self._tails.values()] + [self._rows_due]
            await asyncio.sleep(max(0.01, min(upcoming) - time.monotonic()))

    async def _attempt(self, work: Coroutine[None, None, None]) -> None:
        """Do some work; an error is logged, and does not end the polling of other runs."""
        try:
            await work
        except (OSError, ValueError, RunError):
            pass  # `RunsTable.answer` and the run's row report these errors
        except Exception as error:
            self._exceptions.add(error)

    async def _refresh_rows(self) -> None:
        changed = await asyncio.to_thread(self._table.refresh)
        if changed:
            self._subscribers.publish("runs", NewRuns(runs=changed))
        for run, path in self._table.paths.items():
            self._tails.setdefault(run, Tail(RunFolder(path).metrics))
        for run in self._tails.keys() - self._table.paths.keys():
            del self._tails[run]
        for row in changed:  # also if the run has ended, to read its last lines
            self._tails[row.id].due = 0.0

    async def _read(self, run: str, tail: Tail) -> None:
        trains = self._table.trains(run)
        # A run that does not train is read again only when its row changes.
        wait_seconds = tail.wait_seconds if trains else float("inf")
        tail.due = time.monotonic() + ROWS_SECONDS  # in case the next line raises an error
        lines, is_other = await asyncio.to_thread(tail.read)
        tail.due = time.monotonic() + wait_seconds
        if is_other:
            self._subscribers.publish("curves", CurvesChanged(id=run))
        if lines.steps or lines.others:
            tail.due = min(tail.due, time.monotonic() + tail.wait_seconds)  # more lines may follow
            steps = NewSteps(
                id=run,
                columns=Points.of_lines(lines.train).columns(),
                validations=scored_steps(lines.validations),
                events=marks_of(lines.events),
            )
            self._subscribers.publish("steps", steps)
