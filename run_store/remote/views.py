"""Local copies of runs for commands that read runs, and a thread that keeps them up to date.

::

    s3://bucket/runs/phrasebook   one run     ─▶ RunView     its copy
    s3://bucket/runs              a prefix    ─▶ PrefixView  the folder with the copies of its runs

A copy has the layout of a run folder, so every view of runs reads it like one. Messages name the
URL instead of the folder, see `foundation.shown_urls`.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from data_pipeline.storage.folder_listing import list_folders
from data_pipeline.storage.object_errors import ObjectMissingError, ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from foundation.errors import LocationError
from foundation.location import path_escape
from foundation.periodic_thread import PeriodicThread
from foundation.shown_urls import set_problem, show_as_url
from run_store.errors import NoRunError, RunError, RunMismatchError
from run_store.remote.head import HeadObject
from run_store.remote.pull import RunView
from run_store.run_copies import views_folder
from run_store.run_url import prefix_url

REFRESH_SECONDS = 5.0
REFRESHES_PER_LISTING = 6  # a listing needs a process, and a request per thousand folders
RUNS_AT_ONCE = 8
# Directories that no list of runs and no dashboard reads.
UNLISTED = ("profile", "stacks", "translations", "wandb")


class PrefixView:
    """Folder with the copies of all runs directly below a prefix, by their names.

    Attributes:
        problems: the runs that cannot be read, with the reasons, at the last refresh.
    """

    def __init__(self, url: str, only: tuple[str, ...] | None = None) -> None:
        """Prepare a view, without a request.

        Args:
            only: the only files of each run that are needed, without checkpoints; None for all
                files that the dashboard reads.
        """
        self.url = prefix_url(url)
        self._only = only
        self._wants = is_listed if only is None else only.__contains__
        self.folder = views_folder(self.url)
        self.problems: list[str] = []
        self._views: dict[str, RunView] = {}
        self._unusable: dict[str, str] = {}  # problems of folders that cannot be runs, by name
        self._listings_left = 0
        show_as_url(self.folder, self.url)

    @property
    def has_runs(self) -> bool:
        return bool(self._views)

    def refresh(self) -> None:
        """List the runs periodically, and bring their copies up to date.

        Raises:
            RunError: there is no run, or it is damaged.
            OSError: the object store does not answer, or the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._listings_left:
            self._list()
        self._listings_left = (self._listings_left or REFRESHES_PER_LISTING) - 1
        with ThreadPoolExecutor(RUNS_AT_ONCE, "views") as pool:
            errors = [*zip([*self._views], pool.map(_refresh, self._views.values()), strict=True)]
        failures = {}
        for name, error in errors:
            if isinstance(error, NoRunError):
                shutil.rmtree(self._views.pop(name).folder, ignore_errors=True)
            elif error:
                failures[name] = error
        if failures.keys() == self._views.keys() and all(map(_is_of_store, failures.values())):
            for error in failures.values():
                raise error
        problems = [_problem_of(self._views[name], error) for name, error in failures.items()]
        self.problems = [*problems, *self._unusable.values()]

    def preserve(self) -> None:
        """Keep the displayed state of the runs while the object store does not answer."""
        for view in self._views.values():
            view.preserve()

    def _list(self) -> None:
        runs = {
            name
            for name in list_folders(self.url)
            if not name.startswith(".") and not path_escape(name)
        }
        self._unusable = {}
        for name in runs - self._views.keys():
            try:
                self._views[name] = RunView(
                    f"{self.url}/{name}", self._wants, with_checkpoints=self._only is None
                )
            except (LocationError, RunError) as error:  # for example, a name with a question mark
                self._unusable[name] = str(error)
        for name in self._views.keys() - runs:
            del self._views[name]
        for path in self.folder.iterdir():
            if path.name not in runs:
                shutil.rmtree(path, ignore_errors=True)


def is_listed(name: str) -> bool:
    """Return whether lists of runs or dashboards read a file of a run, given its path."""
    return name.partition("/")[0] not in UNLISTED


def view_of(url: str, only: tuple[str, ...] | None = None) -> RunView | PrefixView:
    """Return the view of a run, or of the runs below a prefix if the URL names no run.

    Args:
        only: see `PrefixView`.

    Raises:
        RunMismatchError: the URL names no bucket.
        ObjectStoreError: the object store does not answer.
    """
    prefix = prefix_url(url)
    with suppress(RunMismatchError):  # the run is damaged; `refresh` reports it
        if HeadObject(ObjectStore(prefix)).read() is None:
            return PrefixView(prefix, only)
    return RunView(prefix)


class ViewFollower(PeriodicThread):
    """Thread that keeps a view up to date, as a context manager.

    If the object store does not answer, the copy keeps its last state, and views of the folder show
    the problem (see `foundation.shown_urls.problem_of`).
    """

    def __init__(
        self, view: RunView | PrefixView, announce: Callable[[str], None] = lambda text: None
    ) -> None:
        """Prepare the thread.

        Args:
            announce: receives the first problem, and the next one only after a successful refresh.
        """
        # Do not wait for a request at the end of a command, because its retries may take long.
        super().__init__("view", REFRESH_SECONDS, self._refresh, join_seconds=0.0)
        self._view = view
        self._announce = announce
        self._has_problem = False

    def _refresh(self) -> None:
        try:
            self._view.refresh()
        except Exception as error:
            is_known = isinstance(error, (OSError, RunError))
            problem = f"the state shown is not current: {error if is_known else repr(error)}"
            if not self._has_problem:
                self._announce(problem)
            self._has_problem = True
            set_problem(self._view.folder, problem)
            self._view.preserve()
            if not is_known:
                raise  # for the log
        else:
            self._has_problem = False
            set_problem(self._view.folder, None)


def _refresh(view: RunView) -> Exception | None:
    """Refresh a run's view; return the error, if any, so that other runs are still refreshed."""
    try:
        view.refresh()
    except Exception as error:
        view.preserve()
        return error
    return None


def _is_of_store(error: Exception) -> bool:
    """Return whether an error means that the object store does not answer."""
    return isinstance(error, ObjectStoreError) and not isinstance(error, ObjectMissingError)


def _problem_of(view: RunView, error: Exception) -> str:
    """Return why a run cannot be shown."""
    match error:
        case ObjectMissingError():
            return f"{view.url} changes too fast, or has lost objects"
        case RunError() | ObjectStoreError():
            return str(error)
        case OSError():  # for example, the name is too long for a folder
            return f"{view.url} cannot be copied here: {error.strerror}"
    return f"{view.url} cannot be read: {error!r}"
