"""Command `transloom watch`: show a run, a folder of runs, or a job while it trains."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from cluster.errors import ClusterError
from foundation.terminal import Terminal, print_json_line, shown
from foundation.untrusted_text import visible_line
from transloom.cli.completion import run_folders
from transloom.cli.jobs import DEFAULT_ADDRESS, Address
from transloom.cli.options import JsonOption
from transloom.cli.run_urls import followed_copy

if TYPE_CHECKING:
    from transloom.observe.terminal.run_feed import FolderFeed, RunFeed

# Niceness of this command, so that training on the same machine has priority.
NICENESS = 10

POLL_SECONDS = 2.0  # a run's status is written at this interval, too


def watch(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[RUN|FOLDER|JOB]",
            help="A run's folder or URL, a folder or URL prefix that contains runs, or a job id "
            "that `transloom submit` printed.",
            autocompletion=run_folders,
        ),
    ] = "runs",
    once: Annotated[
        bool, typer.Option("--once", help="Print the current state once, and exit.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Watch a run, or all runs in a folder, until training ends.

    Ctrl-C ends the display, not the training. The command only reads the runs' folders, so the runs
    may train on any machine; for a job, it also queries the cluster. If the output is a pipe, the
    command periodically prints lines instead of redrawing the display.

    Examples:

      transloom watch runs/phrasebook

      transloom watch phrasebook-3f9a1c2b --address http://head:8265
    """
    try:
        os.nice(NICENESS)
        with followed_copy(what, is_followed=not (once or as_json)) as folder:
            feed = _feed(str(folder), address)
            if as_json:
                print_json_line(feed.to_json())
                return
            show_feed(feed, Terminal(), once=once)
    except KeyboardInterrupt:
        return


def _feed(what: str, address: str) -> "RunFeed | FolderFeed":
    from cluster.launchers.ray_job.job_summary import is_run_or_submitted, newest_job_of
    from transloom.observe.terminal.job_poller import ClusterJobPoller
    from transloom.observe.terminal.run_feed import FolderFeed, RunFeed

    path = Path(what)
    if "/" not in what and not path.is_dir() and what != "runs":
        try:
            job = ClusterJobPoller(address, what)
        except ClusterError as error:
            raise ClusterError(
                f"{what} is not a folder, and cannot be found as a job: {error}"
            ) from error
        return RunFeed(job.run, job.poll)
    if (
        path / "job.json"
    ).is_file():  # `path` is the folder of a job, which is inside the run's folder
        path = path.parent.parent
    if is_run_or_submitted(path):
        return RunFeed(path, lambda: newest_job_of(path))
    return FolderFeed(path)


def show_feed(feed: "RunFeed | FolderFeed", console: Terminal, *, once: bool) -> None:
    """Show the data of a feed until its training ends or a user interrupts the display.

    Args:
        once: show the current data once, and return.
    """
    from transloom.observe.terminal.display import supports_live_display

    try:
        if once or feed.is_over:
            console.print(feed, crop=False)
        elif supports_live_display(console):
            _draw(feed, console)
        else:
            for _ in _polls(feed):
                for change in feed.changes():
                    console.print(change, soft_wrap=True)
    except KeyboardInterrupt:
        return


def _polls(feed: "RunFeed | FolderFeed") -> Iterator[None]:
    """Yield at once, and whenever the feed has been polled, until its training ends."""
    yield
    while not feed.is_over:
        time.sleep(POLL_SECONDS)
        feed.poll()
        yield


def _draw(feed: "RunFeed | FolderFeed", console: Terminal) -> None:
    """Redraw the display periodically on an alternate screen, and close this screen at the end."""
    try:
        with (
            handled_signals(_exit, signal.SIGTERM, signal.SIGHUP),
            Live(feed, console=console, screen=True, auto_refresh=False) as live,
        ):
            for _ in _polls(feed):
                live.refresh()
    except KeyboardInterrupt:
        console.print(shown(visible_line(feed.summary())), soft_wrap=True)
    else:
        console.print(feed, crop=False)


def _exit(number: int, frame: FrameType | None) -> None:
    """Exit as if a signal had ended the process, after the terminal has been restored."""
    raise SystemExit(128 + number)


@contextmanager
def handled_signals(
    handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals
) -> Iterator[None]:
    """Handle signals in the context, and restore the former handlers at its end."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
