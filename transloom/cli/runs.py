"""Commands `transloom runs …`: list runs, and copy runs to and from an object store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundation.terminal import Terminal, bars_by_name, percentage_bars, print_result
from foundation.wording import counted
from run_store.run_url import MAX_RUN_BYTES
from transloom.cli.completion import run_folders
from transloom.cli.options import JsonOption, RunArgument, answer
from transloom.cli.run_urls import existing_run, followed_copy, run_url_argument

if TYPE_CHECKING:
    from run_store.remote.push_pull import TransferSummary

runs_app = typer.Typer(
    help="List runs, and copy runs to and from an object store. `transloom runs FOLDER` is short "
    "for `transloom runs list FOLDER`.",
)

UrlArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        callback=run_url_argument,
        help="URL of the run in an object store, such as s3://BUCKET/PREFIX/NAME.",
    ),
]


@runs_app.command("list")
def list_runs(
    folder: Annotated[
        Path,
        typer.Argument(metavar="[FOLDER|URL]", help="Parent folder of the runs, or its URL."),
    ] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List runs with their state, step, scores, speed, time left and owner.

    The command only reads the runs, so they may train on any machine.

    Examples:

      transloom runs

      transloom runs s3://bucket/runs
    """
    from transloom.observe.terminal.run_status_text import runs_in, runs_table

    with followed_copy(folder, is_followed=False, only=("status.json",)) as runs:
        run_statuses = runs_in(runs)
    answer([s.model_dump(mode="json") for s in run_statuses], as_json, runs_table(run_statuses))


@runs_app.command("push")
def push(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run's folder.", autocompletion=run_folders)
    ],
    url: UrlArgument,
    as_json: JsonOption = False,
) -> None:
    """Copy a run, with all its checkpoints, into an object store, where it can be continued.

    Each checkpoint is verified before it is copied. If the command is interrupted, start it again:
    it continues. Until it has finished, the URL has no run, or the previously copied one. The
    command refuses a run that is training, and a URL that has another run.

    Example:

      transloom runs push runs/phrasebook s3://bucket/runs/phrasebook
    """
    from run_store.remote.push_pull import push_run

    with _transfer_display() as receivers:
        copied = push_run(folder, url, *receivers)
    _answer(str(folder), url, copied, as_json)


@runs_app.command("pull")
def pull(
    url: UrlArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to create.")],
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Maximum size of the copy; a larger run is refused.")
    ] = MAX_RUN_BYTES,
    as_json: JsonOption = False,
) -> None:
    """Copy a run, with all its checkpoints, from an object store into a new folder.

    The result is an ordinary run folder, in which the run can be continued. Each file is verified.
    If the command is interrupted, start it again: it continues.

    Example:

      transloom runs pull s3://bucket/runs/phrasebook runs/phrasebook
    """
    from run_store.remote.push_pull import pull_run

    with _transfer_display() as receivers:
        copied = pull_run(url, folder, *receivers, max_bytes=max_bytes)
    _answer(url, str(folder), copied, as_json)


@runs_app.command("record", hidden=True)
def print_record(run: RunArgument) -> None:
    """Print the metrics file of a run, for another program."""
    from data_pipeline.storage.regular_files import open_regular

    metrics = existing_run(run).metrics
    with suppress(FileNotFoundError), open_regular(metrics) as file:
        for line in file:
            print_result(line.decode(errors="replace"), end="")


@contextmanager
def _transfer_display() -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """Yield the receivers of a transfer's progress and of its messages, which stderr shows."""
    console = Terminal(stderr=True)
    with percentage_bars(console) as progress:
        bars = bars_by_name(progress)
        yield partial(bars, "checkpoints"), partial(console.print, soft_wrap=True)


def _answer(source: str, target: str, copied: "TransferSummary", as_json: bool) -> None:
    what = f"{counted(copied.checkpoints, 'checkpoint')} and {counted(copied.files, 'other file')}"
    text = f"{target} has the run: {what}, {copied.bytes / 1e6:,.1f} MB, all verified"
    answer({"from": source, "to": target, **asdict(copied)}, as_json, text)
