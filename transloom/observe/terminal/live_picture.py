"""Draw a picture of a run in a terminal, and redraw it periodically.

`transloom train` shows a `LivePicture`. It receives the supervisor's lines in memory, and the
picture stays on the screen after the run has ended. `transloom watch` draws the same picture from a
run's folder.
"""

import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

import rich.console
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live

from cluster.terminal import Terminal
from trainer.checkpoints.checkpoint_status import CheckpointFolder
from trainer.record.metrics_lines import Line
from trainer.runs.log import LogEntry
from trainer.runs.vitals import Vitals
from transloom.observe.terminal.picture_blocks import drawn
from transloom.observe.terminal.run_picture import CHECKPOINTS_SHOWN, RunPicture

REFRESHES_PER_SECOND = 2


def supports_live_display(console: Terminal) -> bool:
    """Return whether the console is a terminal that can redraw rows; a dumb terminal cannot."""
    return console.is_terminal and not console.is_dumb_terminal


class LivePicture:
    """Listener that updates a run's picture with each line, notice and vitals, and redraws it."""

    def __init__(
        self, console: Terminal, picture: RunPicture, checkpoints: CheckpointFolder
    ) -> None:
        self._picture = picture
        self._checkpoints = checkpoints
        self._changing = threading.Lock()  # guards the picture, which a thread of rich draws
        self._live = Live(self, console=console, refresh_per_second=REFRESHES_PER_SECOND)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changing:
            self._picture.state = "failed" if kind else "ended"
        self._live.stop()

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Draw the picture while no other thread changes it."""
        with self._changing:
            return list(console.render(drawn(self._picture), options))

    def notice(self, text: str) -> None:
        now = datetime.now(UTC).isoformat()
        with self._changing:
            self._picture.notices.append(LogEntry(time=now, text=text))

    def line(self, line: Line) -> None:
        with self._changing:
            self._picture.line(line)

    def vitals(self, vitals: Vitals) -> None:
        # Reading the folder here does not delay training, because a separate thread calls this
        # method.
        with suppress(OSError):
            self._picture.checkpoints = self._checkpoints.newest(CHECKPOINTS_SHOWN)
        with self._changing:
            self._picture.vitals = vitals
            self._picture.vitals_are_current = not vitals.over
