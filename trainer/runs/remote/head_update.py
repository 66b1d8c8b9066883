"""Change of a run's head by its owner, as a value.

The head is changed by compare-and-swap, so a change may be applied to several heads until one of
them is replaced. Therefore it is a function of the head alone.
"""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from trainer.checkpoints.folder_names import folder_name
from trainer.checkpoints.format import CheckpointHeader
from trainer.checkpoints.state_objects import PartList
from trainer.runs.remote.files import Files
from trainer.runs.remote.head import RunHead, merged_files


@dataclass(frozen=True)
class Publication:
    """Checkpoint that all ranks have uploaded, to be named by the head."""

    header: CheckpointHeader
    parts: PartList
    prefix: str

    @property
    def name(self) -> str:
        return folder_name(self.header.step)


@dataclass(frozen=True)
class HeadUpdate:
    """Content of the next head.

    Attributes:
        before: the files of the last head.
        files: the owner's files.
        removed_files: the names of those that the owner has removed.
        publication: the checkpoint to name, or None.
        removed: the names of the checkpoints to remove.
        moved_aside: the present names of damaged checkpoints, by their former names.
    """

    before: Files
    files: Files
    removed_files: frozenset[str]
    publication: Publication | None
    removed: frozenset[str]
    moved_aside: Mapping[str, str]

    def apply(self, now: RunHead) -> RunHead:
        """Return the head that replaces another one."""
        present = {self.moved_aside.get(name, name): at for name, at in now.checkpoints.items()}
        checkpoints = {name: at for name, at in present.items() if name not in self.removed}
        if self.publication:
            checkpoints[self.publication.name] = self.publication.prefix
        return now.model_copy(
            update={
                "files": merged_files(now.files, self.before, self.files, self.removed_files),
                "checkpoints": checkpoints,
                "stop_request": None,
                "data_workers_request": None,
            }
        )

    def removed_prefixes(self, now: RunHead) -> list[str]:
        """Return where the removed checkpoints of a head are stored."""
        return [at for name, at in now.checkpoints.items() if name in self.removed]


class CheckpointRequests:
    """Checkpoints to publish and to remove in the next round, shared with other threads."""

    def __init__(self) -> None:
        self._publication: Publication | None = None
        self._removed: set[str] = set()
        self._published: list[str] = []
        self._lock = threading.Lock()

    @property
    def pending(self) -> tuple[Publication | None, frozenset[str]]:
        """Checkpoint to publish, and the names of those to remove."""
        with self._lock:
            return self._publication, frozenset(self._removed)

    def publish(self, publication: Publication) -> None:
        """Request the publication of a checkpoint, instead of one that is not published yet."""
        with self._lock:
            self._publication = publication

    def retract(self, step: int) -> None:
        """Withdraw a checkpoint that is not published yet."""
        with self._lock:
            if self._publication and self._publication.header.step == step:
                self._publication = None

    def remove(self, names: Collection[str]) -> None:
        """Request the removal of checkpoints, by their folder names."""
        with self._lock:
            self._removed |= set(names)

    def complete(self, update: HeadUpdate) -> None:
        """Record that the head has received an update."""
        with self._lock:
            self._removed -= update.removed
            if update.publication:
                self._published.append(update.publication.name)
                if self._publication is update.publication:
                    self._publication = None

    def take_published(self) -> list[str]:
        """Return the names of checkpoints that were published since the last call."""
        with self._lock:
            names, self._published = self._published, []
        return names
