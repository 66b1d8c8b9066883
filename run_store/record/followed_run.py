"""Summaries of the runs of a folder, for views that stay open.

The storage may be shared, so the reader polls the signatures of the files, and writes nothing.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from run_store.folder import RunFolder

T = TypeVar("T")
Signature = tuple[int, int, int]


class FollowedRuns(Generic[T]):
    """Summaries of many runs, each recomputed only if the run may have changed.

    Attributes:
        summaries: the summaries by the folder of the run.
    """

    def __init__(
        self,
        summarize: Callable[[Path], T],
        is_active: Callable[[T], bool],
    ) -> None:
        """Start without summaries.

        Args:
            summarize: computes a summary from the folder of a run.
            is_active: returns True for a run whose state may change while its files stay the same,
                such as a run that is being trained.
        """
        self.summaries: dict[Path, T] = {}
        self._summarize, self._is_active = summarize, is_active
        self._signatures: dict[Path, tuple[Signature | None, ...]] = {}

    def refresh(self, paths: Iterable[Path]) -> list[T]:
        """Summarize these runs, forget all others, and return the summaries that have changed."""
        summaries: dict[Path, T] = {}
        signatures: dict[Path, tuple[Signature | None, ...]] = {}
        changed = []
        for path in paths:
            known, signatures[path] = self.summaries.get(path), _signatures_of(RunFolder(path))
            is_same = self._signatures.get(path) == signatures[path]
            if known is not None and is_same and not self._is_active(known):
                summaries[path] = known
                continue
            summaries[path] = self._summarize(path)
            if summaries[path] != known:
                changed.append(summaries[path])
        self.summaries, self._signatures = summaries, signatures
        return changed


def _signatures_of(run: RunFolder) -> tuple[Signature | None, ...]:
    """Return the signatures of the files and folders that determine a run's status.

    If no process trains the run, its status changes only if a signature changes.
    """
    jobs = (run.path / "jobs").glob("*")  # the folder of a job changes with its record
    newest = max(jobs, key=lambda job: (signature_of(job) or (0,))[-1], default=run.path / "jobs")
    return tuple(map(signature_of, (run.status, run.path / "owners", newest)))


def signature_of(path: Path) -> Signature | None:
    """Return the inode, size and modification time (ns) of a file, or None if there is no file.

    The signature changes if the file is changed or replaced.
    """
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
