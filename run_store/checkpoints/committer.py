"""Supervisor's side of a checkpoint: commit it when all ranks have written their parts.

parts of the ranks ──complete──▶ check the lease ──▶ rename to step-… ──▶ remove older checkpoints

If the run is in an object store, a `CheckpointPublisher` publishes the complete checkpoint there
before it is renamed. This takes time, so `take_committed` reports it later.
"""

import secrets
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from data_pipeline.storage.regular_files import write_durably
from foundation.location import Location
from run_store.checkpoints.commit import commit, partial_folder
from run_store.checkpoints.final_save import FINAL_RETRY_SECONDS, final_save_attempts
from run_store.checkpoints.folder_names import folder_name
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.retention import prune
from run_store.checkpoints.state_file import FileRecord
from run_store.checkpoints.state_objects import PARTS, PartList, UploadedFile
from run_store.config import CheckpointsConfig
from run_store.errors import CheckpointError
from run_store.lease import Lease, discard

PUBLICATION_POLL_SECONDS = 0.05


class _Complete(NamedTuple):
    """Checkpoint whose parts all ranks have written."""

    step: int
    header: CheckpointHeader
    files: tuple[FileRecord, ...]


class CheckpointPublisher(Protocol):
    """Publisher of checkpoints in a run's object store, such as `run_store.remote.mirror`.

    Attributes:
        states_url: the location under which ranks upload the state files of this owner.
    """

    @property
    def states_url(self) -> str: ...

    def publish(self, folder: str, header: CheckpointHeader, parts: PartList) -> None:
        """Publish a complete checkpoint as soon as possible, instead of an older one."""

    def retract(self, step: int) -> None:
        """Withdraw a checkpoint that is not published yet."""

    def take_published(self) -> list[str]:
        """Return the folder names of checkpoints that were published since the last call."""

    def remove(self, names: Collection[str]) -> None:
        """Remove published checkpoints, by their folder names."""

    def begin_attempt(self, attempt: str) -> None:
        """Schedule the removal of leftovers of former attempts, whose ranks have ended."""


class CheckpointCommitter:
    """Collector of the ranks' parts that commits each complete checkpoint.

    If a checkpoint cannot be committed, the committer calls `announce`, and training continues. The
    committer gives up the checkpoint when a part of a later checkpoint arrives. It retries the last
    checkpoint of a run for some time.

    Attributes:
        attempt: the name of this start of the ranks. It is part of the names of the ranks' partial
            folders, because ranks of an earlier start may still be writing to their folders.
    """

    def __init__(
        self,
        lease: Lease,
        checkpoints: Path,
        config: CheckpointsConfig,
        world_size: int,
        announce: Callable[[str], None],
        publisher: CheckpointPublisher | None = None,
    ) -> None:
        self.attempt = secrets.token_hex(4)
        self.work = lease.work
        self._lease = lease
        self._checkpoints = checkpoints
        self._config = config
        self._world_size = world_size
        self._announce = announce
        self._parts: dict[int, list[tuple[FileRecord, CheckpointHeader]]] = {}
        self._failed: set[int] = set()
        self._uncommitted: _Complete | None = None
        self._publisher = publisher
        self._publishing: dict[str, _Complete] = {}  # checkpoints by folder name, oldest first
        self.newest_step = 0
        if publisher:
            publisher.begin_attempt(self.attempt)
        for left_by_another_attempt in self.work.iterdir():
            discard(left_by_another_attempt)

    @property
    def states_url(self) -> str | None:
        """Location to which the ranks upload their state files; None without a publisher."""
        return self._publisher.states_url if self._publisher else None

    def add(self, file: FileRecord, header: CheckpointHeader) -> bool:
        """Add a rank's part; return True if it was the last part and the checkpoint is committed.

        With a publisher, the checkpoint is committed later; see `take_published`.

        Raises:
            LeaseLostError: another process owns the run now.
        """
        step = header.step
        if self._uncommitted and self._uncommitted.step < step:
            self.give_up(self._uncommitted.step)
        if step in self._failed:
            discard(self._partial(step))  # a slower rank may have created the folder again
            return False
        parts = self._parts.setdefault(step, [])
        parts.append((file, header))
        if len(parts) < self._world_size:
            return False
        files, headers = zip(*sorted(parts, key=lambda part: part[0].name), strict=True)
        complete = _Complete(step, headers[0], files)
        if self._publisher:
            self._publish(complete)
            return False
        try:
            self._commit(complete)
        except OSError as error:
            self._uncommitted = complete
            self._announce(
                f"the checkpoint of step {step} cannot be committed: {error}. Training goes on, "
                "and the previous checkpoint remains valid. Free disk space or fix the "
                "permissions before the next checkpoint"
            )
            return False
        return True

    def take_published(self) -> list[int]:
        """Commit checkpoints that were published since the last call, and return their steps.

        Raises:
            LeaseLostError: another process owns the run now.
        """
        if self._publisher is None:
            return []
        steps = []
        for name in self._publisher.take_published():
            if complete := self._publishing.get(name):
                self._commit(complete)
                steps.append(complete.step)
                for older in [old for old in self._publishing.values() if old.step < complete.step]:
                    self.give_up(older.step)
        return steps

    def _publish(self, complete: "_Complete") -> None:
        assert self._publisher is not None
        self._lease.check()
        self._publishing[folder_name(complete.step)] = complete
        files = sorted(complete.files, key=lambda file: file.name)
        header = complete.header.model_copy(update={"files": files})
        self._publisher.publish(self._partial(complete.step).name, header, self._parts_of(complete))

    def _parts_of(self, complete: "_Complete", url: str | None = None) -> PartList:
        files = [file for file in complete.files if isinstance(file, UploadedFile)]
        assert len(files) == len(complete.files)
        location = Location(url) if url else None
        return PartList(url=location, files=sorted(files, key=lambda file: file.name))

    def give_up(self, step: int) -> bool:
        """Give up a checkpoint that could not be written or committed.

        Returns:
            True if this is the first call for the checkpoint.

        Raises:
            LeaseLostError: another process owns the run now, which is the cause of the failure.
        """
        with suppress(OSError):  # the file system may be unavailable for a short time
            self._lease.check()
        news = step not in self._failed
        self._failed.add(step)
        self._parts.pop(step, None)
        if self._uncommitted and self._uncommitted.step == step:
            self._uncommitted = None
        if self._publisher and self._publishing.pop(folder_name(step), None):
            self._publisher.retract(step)
        discard(self._partial(step))
        return news

    def finish(self) -> list[int]:
        """Commit the last checkpoint if an earlier try failed, after the ranks have exited.

        Returns:
            The steps of checkpoints that were published meanwhile.

        Raises:
            CheckpointError: the last checkpoint could not be written or committed.
            LeaseLostError: another process owns the run now.
        """
        if self._uncommitted:
            self._commit_finally(self._uncommitted)
        published = self._await_publication()
        missing = max(self._failed, default=0)
        if missing > self.newest_step:
            raise CheckpointError(
                f"The last checkpoint, of step {missing}, could not be saved; an earlier message "
                "has the cause. The previous checkpoint remains valid. Free disk space or fix the "
                "permissions, then start the same command again"
            )
        return published

    def _commit(self, complete: "_Complete") -> None:
        step = complete.step
        self._lease.check()
        final = self._checkpoints / folder_name(step)
        partial = self._partial(step)
        if self._publisher:
            parts = self._parts_of(complete, f"{self._publisher.states_url}/{partial.name}")
            partial.mkdir(exist_ok=True)  # the ranks may be on other nodes
            write_durably(partial / PARTS, parts.to_json())
            self._publishing.pop(folder_name(step), None)
        commit(partial, final, complete.header, complete.files)
        self._parts.pop(step, None)
        self._uncommitted = None
        self.newest_step = step
        self._prune()

    def _await_publication(self) -> list[int]:
        """Wait for some time until the last checkpoint is published, and give it up otherwise.

        Returns:
            The steps of the published checkpoints.
        """
        deadline = time.monotonic() + FINAL_RETRY_SECONDS
        steps = self.take_published()
        while self._publishing and time.monotonic() < deadline:
            self._lease.check()
            time.sleep(PUBLICATION_POLL_SECONDS)
            steps += self.take_published()
        for complete in list(self._publishing.values()):
            self.give_up(complete.step)
        return steps

    def _commit_finally(self, complete: "_Complete") -> None:
        for left in final_save_attempts():
            try:
                self._commit(complete)
            except OSError as error:
                if left:
                    self._announce(
                        f"the checkpoint of step {complete.step} cannot be committed: {error}. It "
                        f"is the run's last checkpoint, so retries continue for {left:.0f} s"
                    )
            else:
                return
        self.give_up(complete.step)

    def _prune(self) -> None:
        try:
            removed = prune(self._checkpoints, self.work, self._config)
            if self._publisher and removed:
                self._publisher.remove([path.name for path in removed])
        except OSError as error:
            with suppress(OSError):
                self._lease.check()
            self._announce(f"a checkpoint that is no longer needed cannot be removed: {error}")

    def _partial(self, step: int) -> Path:
        return partial_folder(self.work, step, self.attempt)
