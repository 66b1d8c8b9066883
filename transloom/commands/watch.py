"""`transloom watch`: how a feed is shown, in a terminal or as lines.

A feed is a run (`run_feed.py`) or a folder of runs (`folder_feed.py`).
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from rich.console import RenderableType
from rich.live import Live

from cluster.terminal import Terminal, shown
from foundation.strangers_text import visible_line
from trainer.record.records import Event
from trainer.runs.log import indented
from transloom.observe.terminal.display import PlainLines
from transloom.observe.terminal.folder_feed import FolderFeed
from transloom.observe.terminal.live_picture import is_drawn_anew
from transloom.observe.terminal.run_feed import RunFeed

LOOK_SECONDS = 1.0
# A folder of runs is told of in lines no more often than that.
FOLDER_LINES_SECONDS = 60.0


class Feed(Protocol):
    """What is watched."""

    def look(self) -> None:
        """Read what is new."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is going to happen."""

    def rendered(self, console: Terminal, height: int | None) -> RenderableType:
        """The picture for a console of so many rows; None for all that there is to see."""

    def summary(self) -> str:
        """The whole in a line."""


def watch(feed: RunFeed | FolderFeed, console: Terminal, *, once: bool) -> None:
    """Show what a feed has until it is over, or somebody interrupts it.

    Args:
        once: show one picture, and end.
    """
    try:
        if once or feed.is_over:
            _print(feed, console)
        elif is_drawn_anew(console):
            _draw(feed, console)
        elif isinstance(feed, RunFeed):
            _tell_of_run(feed, console)
        else:
            _tell_of_folder(feed, console)
    except KeyboardInterrupt:
        return


def _draw(feed: Feed, console: Terminal) -> None:
    """Draw the picture again and again on a screen of its own, which is put away at the end."""
    try:
        with (
            _ended_by_signals(),
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while True:
                live.update(feed.rendered(console, console.height), refresh=True)
                if feed.is_over:
                    break
                time.sleep(LOOK_SECONDS)
                feed.look()
    except KeyboardInterrupt:
        console.print(shown(visible_line(feed.summary())), soft_wrap=True)
    else:
        _print(feed, console)


def _print(feed: Feed, console: Terminal) -> None:
    """The picture as it is: as high as the terminal, or all of it in a pipe."""
    height = console.height - 1 if console.is_terminal else None
    console.print(feed.rendered(console, height), crop=False)


def _tell_of_run(feed: RunFeed, console: Terminal) -> None:
    """A line now and then, as `transloom train` has them where nothing can be drawn."""
    picture = feed.picture
    title = visible_line(feed.summary())
    lines = PlainLines(console, title, picture.max_steps or 0, picture.smooths_labels)
    while not feed.is_over:
        time.sleep(LOOK_SECONDS)
        feed.look()
        for line in feed.new_lines:
            if not isinstance(line, Event):  # the log has events, too
                lines.line(line)
        for entry in feed.new_entries:
            lines.notice(entry.text)
    lines.notice(feed.summary())


def _tell_of_folder(feed: FolderFeed, console: Terminal) -> None:
    """A line for each run whose state changes, and one for each that trains now and then."""
    console.print(feed.rendered(console, None), crop=False)
    next_lines = time.monotonic() + FOLDER_LINES_SECONDS
    while not feed.is_over:
        time.sleep(LOOK_SECONDS)
        feed.look()
        texts = feed.changes()
        if time.monotonic() >= next_lines:
            next_lines = time.monotonic() + FOLDER_LINES_SECONDS
            texts += feed.under_way()
        for text in dict.fromkeys(texts):
            console.print(shown(indented(visible_line(text))), soft_wrap=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command in order, so that the terminal is put back."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
