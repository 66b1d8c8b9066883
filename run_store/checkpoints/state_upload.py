"""Upload of a rank's state files to an object store, while training continues.

The writer writes a state file to the node's disk. A thread uploads the file, removes it from the
disk and reports it. While an upload is in flight, only the newest file waits; an older file that
still waits is given up. So a slow object store delays or drops checkpoints, but it never delays a
step.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from run_store.checkpoints.final_save import final_save_attempts
from run_store.checkpoints.state_objects import upload_state_file
from run_store.errors import CheckpointError

if TYPE_CHECKING:
    from run_store.checkpoints.format import CheckpointHeader
    from run_store.checkpoints.state_file import FileRecord


class StateListener(Protocol):
    """Receiver of reports, implemented by `trainer.job.rank_job.Supervision`."""

    def notice(self, text: str) -> None: ...

    def state_written(self, file: "FileRecord", header: "CheckpointHeader") -> None: ...

    def state_failed(self, step: int, reason: str) -> None: ...


@dataclass(frozen=True)
class WrittenState:
    """State file on the node's disk that is to be uploaded."""

    path: Path
    file: "FileRecord"
    header: "CheckpointHeader"

    @property
    def step(self) -> int:
        return self.header.step


class StateUploader:
    """Thread that uploads a rank's state files, one at a time and the newest first."""

    def __init__(self, url: str, supervision: StateListener) -> None:
        """Start the thread.

        Args:
            url: the location under which checkpoints of the run's owner are stored.
            supervision: receives finished files and failures.
        """
        self._url = url
        self._supervision = supervision
        self._thread = ThreadPoolExecutor(1, "state-upload")
        self._lock = threading.Lock()
        self._waiting: WrittenState | None = None
        self._uploads: list[Future[None]] = []

    def enqueue(self, state: WrittenState) -> None:
        """Upload a file as soon as the upload in flight has ended; never blocks."""
        with self._lock:
            superseded, self._waiting = self._waiting, state
        self._uploads = [upload for upload in self._uploads if not _has_succeeded(upload)]
        self._uploads.append(self._thread.submit(self._upload_waiting))
        if superseded:
            self._give_up(
                superseded,
                f"the checkpoint of step {superseded.step} is given up, because {self._url} has "
                f"not received an earlier one yet. The one of step {state.step} is uploaded "
                "instead. Save checkpoints less often, or use a faster connection",
            )

    def upload_finally(self, state: WrittenState) -> None:
        """Upload the run's last checkpoint, with retries for some time.

        Raises:
            CheckpointError: the file could not be uploaded.
        """
        self.finish()
        for left in final_save_attempts():
            try:
                self._upload(state)
            except OSError as error:
                cause = _cause(state, error)
                if not left:
                    raise CheckpointError(
                        f"{cause}. The previous checkpoint remains valid; restore the connection "
                        "to the object store, then start the same command again"
                    ) from None
                self._supervision.notice(
                    f"{cause}. It is part of the run's last checkpoint, so retries continue for "
                    f"{left:.0f} s"
                )
            else:
                return

    def finish(self) -> None:
        """Wait until all files are uploaded or given up; re-raise the thread's exception."""
        uploads, self._uploads = self._uploads, []
        for upload in uploads:
            upload.result()

    def close(self) -> None:
        """Finish the uploads and stop the thread."""
        try:
            self.finish()
        finally:
            self._thread.shutdown()

    def _upload_waiting(self) -> None:
        with self._lock:
            state, self._waiting = self._waiting, None
        if state is None:
            return  # an earlier call has uploaded this file
        try:
            self._upload(state)
        except OSError as error:
            self._give_up(
                state,
                f"{_cause(state, error)}. Training goes on, and the previous checkpoint remains "
                "valid",
            )

    def _upload(self, state: WrittenState) -> None:
        from data_pipeline.storage.object_store import ObjectStore  # imports obstore

        store = ObjectStore(f"{self._url}/{state.path.parent.name}")
        uploaded = upload_state_file(store, state.path, state.file)
        state.path.unlink()
        self._supervision.state_written(uploaded, state.header)

    def _give_up(self, state: WrittenState, reason: str) -> None:
        with suppress(OSError):
            state.path.unlink()
        self._supervision.state_failed(state.step, reason)


def _has_succeeded(upload: "Future[None]") -> bool:
    return upload.done() and upload.exception() is None


def _cause(state: WrittenState, error: OSError) -> str:
    return f"the state file {state.file.name} of step {state.step} cannot be uploaded: {error}"
