"""`transloom watch`: a run, a folder of runs, or a job, as it goes on."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import ClusterError
from cluster.terminal import Terminal, tell_in_json
from transloom.cli.completion import run_folders
from transloom.cli.jobs import DEFAULT_ADDRESS, Address
from transloom.cli.options import JsonOption

if TYPE_CHECKING:
    from transloom.observe.terminal.folder_feed import FolderFeed
    from transloom.observe.terminal.run_feed import RunFeed

# Behind whatever trains on this machine.
NICENESS = 10


def watch(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[RUN|FOLDER|JOB]",
            help="A run's folder, a folder in which runs lie, or the id that `submit` printed.",
            autocompletion=run_folders,
        ),
    ] = "runs",
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    address: Address = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Watch a run, or all runs of a folder, until it is over; Ctrl-C leaves it as it is.

    Reads their folders alone, wherever they are trained; in a pipe, prints a line now and then.

    Examples:

      transloom watch runs/phrasebook

      transloom watch phrasebook-3f9a1c2b --address http://head:8265
    """
    try:
        os.nice(NICENESS)
        feed = _feed(what, address)
        if as_json:
            tell_in_json(_standing(feed))
            return
        from transloom.commands.watch import watch as show

        show(feed, Terminal(), once=once)
    except KeyboardInterrupt:
        return


def _feed(what: str, address: str) -> "RunFeed | FolderFeed":
    from trainer.record.standing import is_run
    from transloom.observe.terminal.folder_feed import FolderFeed
    from transloom.observe.terminal.glance import JobOfCluster, newest_job_of
    from transloom.observe.terminal.run_feed import RunFeed

    path = Path(what)
    if "/" not in what and not path.is_dir() and what != "runs":
        try:
            job = JobOfCluster(address, what)
        except ClusterError as error:
            raise ClusterError(f"{what} is no folder, so it is taken for a job: {error}") from error
        return RunFeed(job.run, job.look)
    if (path / "job.json").is_file():  # the folder of a job, in that of its run
        path = path.parent.parent
    if is_run(path) or (path / "jobs").is_dir():
        return RunFeed(path, lambda: newest_job_of(path))
    return FolderFeed(path, newest_job_of)


def _standing(feed: "RunFeed | FolderFeed") -> object:
    from transloom.observe.terminal.folder_feed import FolderFeed

    return feed.standings() if isinstance(feed, FolderFeed) else feed.standing()
