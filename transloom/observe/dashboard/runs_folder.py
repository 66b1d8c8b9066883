"""Find the runs in the folder that a dashboard shows, and assign their ids in URLs.

The dashboard follows no link out of the folder, for a run or for a file of a run. Otherwise a user
who can write into one run could show other users' files on the page.
"""

import hashlib
import os
import re
from pathlib import Path

from cluster.launchers.ray_job.job_summary import is_run_or_submitted
from foundation.shown_urls import problem_of
from run_store.checkpoints.format import HEADER
from run_store.record.run_status import no_runs_in

MAX_RUNS = 10_000
# Files and folders of a run that the dashboard reads, and folders whose entries it lists.
_MEMBERS = (
    *("run.json", "owners", "recipe.yaml", "metrics.jsonl", "curves.bin", "checkpoints"),
    *("status.json", "log.txt", "nodes.jsonl", "dataset", "dataset/manifest.json", "jobs"),
)
_LISTED = ("owners", "checkpoints", "jobs")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunsFolder:
    """A folder of runs, or a single run.

    Attributes:
        path: the folder, with symbolic links resolved.

    Raises:
        RunMismatchError: the folder does not exist.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.resolve(strict=True)
            if not self.path.is_dir():
                raise NotADirectoryError(0, "it is not a folder")
            if not _is_text(str(self.path)):
                raise NotADirectoryError(0, "its path is not UTF-8")
        except OSError as error:
            raise no_runs_in(_in_text(path), error, " or a run") from error

    def list_runs(self) -> tuple[dict[str, Path], list[str]]:
        """Return the runs by id, in the order of their names, and messages about problems."""
        outdated = problem_of(self.path)
        problems = [outdated] if outdated else []
        if is_run_or_submitted(self.path):
            return {run_id(self.path.name): self.path}, problems + self._links_out(self.path)[:1]
        found: dict[str, Path] = {}
        try:
            paths = sorted(self.path.iterdir())
        except OSError as error:
            return {}, [*problems, f"{self.path} cannot be read: {error.strerror}"]
        for path in paths[:MAX_RUNS]:
            if not _is_text(path.name):
                problems.append(f"{_in_text(path)} is not shown: its name is not UTF-8. Rename it")
                continue
            links = self._links_out(path) if path.is_symlink() or is_run_or_submitted(path) else []
            problems += links[:1]
            if not links and is_run_or_submitted(path):
                found[run_id(path.name)] = path
        if len(paths) > MAX_RUNS:
            problems.append(
                f"{self.path} has {len(paths):,} entries: only the first {MAX_RUNS:,} are shown"
            )
        return found, problems

    def _links_out(self, run: Path) -> list[str]:
        """Return a message about each link of a run that leads out of the folder."""
        if leads_out(run, self.path):
            return [_not_followed(run)]
        links = [run / name for name in _MEMBERS if leads_out(run / name, self.path)]
        for name in () if links else _LISTED:
            entries = _entries(run / name)
            headers = [entry / name for entry in entries for name in (HEADER, "job.json")]
            links += [path for path in (*entries, *headers) if leads_out(path, self.path)]
        return [_not_followed(link) for link in links]


def run_id(name: str) -> str:
    """Return a run's id in URLs: its name if all characters are plain, else a hash of the name."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:24]


def leads_out(path: Path, folder: Path) -> bool:
    """Return whether a path is a link to a target outside the folder."""
    try:
        return path.is_symlink() and not path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # such as a link to itself
        return True


def _entries(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder)]
    except OSError:
        return []


def _is_text(name: str) -> bool:
    """Return whether a name is UTF-8; Python represents other bytes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_text(path: Path) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


def _not_followed(link: Path) -> str:
    return (
        f"{_in_text(link)} is a link to a target outside the folder, and is not followed. Show the "
        "target's folder, or a folder that contains both the link and the target"
    )
