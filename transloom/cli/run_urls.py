"""Runs in an object store as arguments of commands.

A command that reads a run gets the folder of a local copy, and works as with a run folder. Its
output shows the URL (see `foundation.shown_urls`). A command that follows runs keeps the copy up to
date while it works. The modules of the object store are imported only for URLs.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cluster.errors import RecipeError
from foundation.shown_urls import show_as_url
from foundation.terminal import warn
from run_store.errors import RunError, RunMismatchError
from run_store.remote.local_copy import local_copy
from run_store.run_url import is_run_url, run_url

if TYPE_CHECKING:
    from run_store.folder import RunFolder


def run_location(run: Path | None) -> Path | None:
    """Return a run's folder or URL as given; a callback of `--run`.

    Raises:
        RecipeError: it is a URL of another kind, which would become a local folder named `http:`.
    """
    if run and run.parts and run.parts[0].endswith(":") and not is_run_url(run):
        raise RecipeError(
            f"The run's folder is {'//'.join(str(run).split('/', 1))}, expected a folder, or a URL "
            "in an object store such as s3://BUCKET/PREFIX/NAME"
        )
    return run


def run_url_argument(ctx: typer.Context, url: str) -> str:
    """Return the URL of a run in its usual form; a callback.

    Raises:
        RecipeError: the text is not the URL of a run.
    """
    if ctx.resilient_parsing:  # shell completion, which must not raise an error
        return url
    if not is_run_url(url):
        raise RecipeError(
            f"{url} is not the URL of a run, expected one such as s3://BUCKET/PREFIX/NAME"
        )
    return run_url(url)


def local_run(ctx: typer.Context, run: Path | None) -> Path | None:
    """Return the folder of a run, which is a local copy if a URL is given; a callback.

    Raises:
        RecipeError: it is a URL of another kind.
        RunMismatchError: there is no run at the URL.
        ObjectStoreError: the object store does not answer.
    """
    if run is None or ctx.resilient_parsing:
        return run
    return local_copy(run_location(run) or run)


def local_runs(ctx: typer.Context, runs: list[Path]) -> list[Path]:
    """Return the folders of runs; see `local_run`."""
    return [local_run(ctx, run) or run for run in runs]


def local_run_names(ctx: typer.Context, names: list[str]) -> list[str]:
    """Replace the URLs among names of the form RUN or RUN@CHECKPOINT; see `local_run`.

    Other texts, such as the name of a file, stay as they are.
    """
    return names if ctx.resilient_parsing else [name_with_copy(name) for name in names]


def name_with_copy(name: str) -> str:
    """Replace a URL in a name of the form RUN or RUN@CHECKPOINT by the folder of a local copy."""
    if not is_run_url(name):
        return name
    url, at, checkpoint = name.rpartition("@")
    if at and (checkpoint.isdecimal() or checkpoint.startswith("average-of-")):
        return f"{local_copy(url)}@{checkpoint}"
    return str(local_copy(name))


def named_run(name: str) -> tuple[Path, str | None]:
    """Split RUN@CHECKPOINT into the run's folder and the checkpoint.

    For RUN alone, the checkpoint is None.
    """
    path, at, checkpoint = name.rpartition("@")
    if at and not Path(name).exists():
        return Path(path), checkpoint
    return Path(name), None


def existing_run(run: Path) -> "RunFolder":
    """Return the folder of a run.

    Raises:
        RunMismatchError: the run does not exist.
    """
    from run_store.folder import RunFolder

    folder = RunFolder(run)
    folder.card()
    return folder


@contextmanager
def followed_copy(
    what: Path | str,
    announce: Callable[[str], None] = lambda text: None,
    *,
    is_followed: bool = True,
    only: tuple[str, ...] | None = None,
) -> Iterator[Path]:
    """Yield a run's folder or a folder of runs; a local copy of a URL is kept up to date.

    Args:
        announce: receives a message if the copy cannot be kept up to date for a while.
        is_followed: whether to keep the copy up to date.
        only: for a prefix of runs, the files to copy of each run; None for the files that the
            dashboard reads.

    Raises:
        RunMismatchError: the URL is neither that of a run nor a prefix of runs.
        ObjectStoreError: the object store does not answer.
    """
    run_location(Path(what))
    if not is_run_url(what):
        yield Path(what)
        return
    from run_store.remote.views import PrefixView, ViewFollower, view_of  # imports obstore

    view = view_of(str(what), only)
    view.refresh()
    if isinstance(view, PrefixView):
        for problem in view.problems:
            warn(problem)
        if not view.has_runs:
            raise RunMismatchError(
                f"There is no run at {view.url}, and none below it. Name the URL of a run, such as "
                "s3://bucket/runs/phrasebook, or the prefix of runs, such as s3://bucket/runs"
            )
    with ViewFollower(view, announce) if is_followed else nullcontext():
        yield view.folder


@contextmanager
def writable(run: "RunFolder") -> Iterator["RunFolder"]:
    """Yield a folder in which a command may write small files of a run, such as translations.

    For a run in an object store this is a temporary folder, whose files are uploaded at the end. If
    that fails, a warning says so, because the command has other results.
    """
    if run.url is None:
        yield run
        return
    from run_store.folder import RunFolder

    with tempfile.TemporaryDirectory(prefix="transloom-") as name:
        folder = Path(name)
        show_as_url(folder, run.url)
        yield RunFolder(folder, run.url)
        from run_store.remote.changes import add_files  # imports obstore

        try:
            add_files(run.url, folder)
            local_copy(run.url)
        except (OSError, RunError) as error:
            warn(f"the results are not stored in {run.url}: {error}")
