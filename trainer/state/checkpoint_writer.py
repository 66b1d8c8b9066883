"""Asynchronous writer of a rank's share of a checkpoint.

A save stops training while it copies the share to host memory. A thread then writes the copy to the
rank's state file and reports the file to a `StateListener`. The supervisor commits the checkpoint
when all ranks have reported. Only one write is in flight at a time, because the writer has memory
for only one copy.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from run_store.checkpoints.commit import partial_folder
from run_store.checkpoints.final_save import final_save_attempts
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.state_file import (
    BYTES_PER_ELEMENT,
    FileRecord,
    fragment_key,
    state_file_name,
    write_state_file,
)
from run_store.checkpoints.state_upload import StateListener, StateUploader, WrittenState
from run_store.errors import CheckpointError
from trainer.process.distributed import sum_over_ranks
from trainer.process.host_memory import available_bytes
from trainer.process.placement import Placement

REPORTED_WAIT_SECONDS = 0.1


class CheckpointWriter:
    """Background writer of a rank's share of the state, from a copy in host memory."""

    def __init__(
        self,
        owned: Callable[[], Iterable[Fragment]],
        *,
        work: Path,
        attempt: str,
        placement: Placement,
        supervision: StateListener,
        sync_record: Callable[[], None] = lambda: None,
        uploader: StateUploader | None = None,
    ) -> None:
        """Allocate the host copy; pin it if the rank trains on a GPU.

        Args:
            owned: returns the fragments that this rank owns; every call returns the same fragments.
            work: the work folder of the run's owner, see `run_store.lease`.
            attempt: the name of this start of the ranks.
            placement: this rank and its device.
            supervision: receives notices, finished files and failures.
            sync_record: syncs the metrics file to the disk, because it must contain all steps up to
                a checkpoint; raises CheckpointError if the sync fails.
            uploader: uploads the files to the run's object store; None if the run is in a folder.
        """
        self._uploader = uploader
        self._owned = owned
        self._work = work
        self._attempt = attempt
        self._placement = placement
        self._supervision = supervision
        self._sync_record = sync_record
        self._sizes = fragment_sizes(owned())
        numel = sum(self._sizes.values())
        self._buffer = torch.empty(numel, dtype=torch.float32).zero_()  # zeroing allocates pages
        self._is_pinned = placement.device == "cuda" and numel > 0
        if self._is_pinned:
            pin(self._buffer)
        self._copies = self._buffer.split(list(self._sizes.values()))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._writing_step = 0

    def save(self, header: CheckpointHeader, *, final: bool) -> float:
        """Start writing the current state.

        Args:
            header: the header of the checkpoint.
            final: whether to wait until the file is written, and to retry for some time if writing
                fails (`run_store.checkpoints.final_save`). If False, a failure is only reported to
                `supervision`.

        Returns:
            The number of seconds for which training was stalled.

        Raises:
            CheckpointError: `final` is set, and the file could not be written.
        """
        started = time.monotonic()
        self._finish_writing()
        waited = time.monotonic() - started
        if waited > REPORTED_WAIT_SECONDS:
            self._supervision.notice(
                f"training waited {waited:.1f} s at step {header.step}, because the checkpoint of "
                f"step {self._writing_step} was still being written"
            )
        self._copy()
        self._writing_step = header.step
        self._writing = self._thread.submit(self._write_finally if final else self._write, header)
        if final:
            self.finish()
        return time.monotonic() - started

    def close(self) -> None:
        """Wait for a write or upload in flight, then stop threads and unpin the host copy."""
        try:
            self.finish()
        finally:
            self._thread.shutdown()
            if self._uploader:
                self._uploader.close()
            if self._is_pinned:
                unpin(self._buffer)

    def finish(self) -> None:
        """Wait until no write or upload is in flight; re-raise an exception of the thread."""
        self._finish_writing()
        if self._uploader:
            self._uploader.finish()

    def _finish_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    @torch.no_grad()
    def _copy(self) -> None:
        fragments = list(self._owned())
        assert fragment_sizes(fragments) == self._sizes
        copy_fragments(fragments, self._copies, self._placement)

    def _write(self, header: CheckpointHeader) -> None:
        try:
            file = self._write_file(header.step)
        except (OSError, CheckpointError) as error:
            self._supervision.state_failed(
                header.step,
                f"{self._cause(header.step, error)}. Training goes on, and the previous "
                "checkpoint remains valid. Free disk space or fix the permissions before the next "
                "checkpoint",
            )
        else:
            if self._uploader:
                self._uploader.enqueue(WrittenState(self._path(header.step), file, header))
            else:
                self._supervision.state_written(file, header)

    def _write_finally(self, header: CheckpointHeader) -> None:
        for left in final_save_attempts():
            try:
                file = self._write_file(header.step)
                break
            except (OSError, CheckpointError) as error:
                cause = self._cause(header.step, error)
                if not left:
                    raise CheckpointError(
                        f"{cause}. The previous checkpoint remains valid; free disk space or fix "
                        "the permissions, then start the same command again"
                    ) from error
            self._supervision.notice(
                f"{cause}. It is part of the run's last checkpoint, so retries continue for "
                f"{left:.0f} s"
            )
        if self._uploader:
            self._uploader.upload_finally(WrittenState(self._path(header.step), file, header))
        else:
            self._supervision.state_written(file, header)

    def _write_file(self, step: int) -> FileRecord:
        self._sync_record()
        path = self._path(step)
        # Do not create the parents: if they are missing, another process owns the run.
        path.parent.mkdir(exist_ok=True)
        return write_state_file(path, self._sizes, [self._buffer.view(torch.uint8).numpy().data])

    def _path(self, step: int) -> Path:
        name = state_file_name(self._placement.rank, self._placement.world_size)
        return partial_folder(self._work, step, self._attempt) / name

    def _cause(self, step: int, error: OSError | CheckpointError) -> str:
        if isinstance(error, CheckpointError):
            return str(error)
        return f"{self._path(step)} cannot be written: {error.strerror}"


def fragment_sizes(fragments: Iterable[Fragment]) -> dict[str, int]:
    """Return the number of elements of each fragment, by the fragment's name in the file."""
    return {fragment_key(f.kind, f.parameter, f.start): f.tensor.numel() for f in fragments}


def share_bytes(owned: Iterable[Fragment]) -> int:
    """Return the bytes of a rank's share of the state."""
    return sum(fragment.tensor.numel() for fragment in owned) * BYTES_PER_ELEMENT


def copy_fragments(
    fragments: Iterable[Fragment], copies: Iterable[torch.Tensor], placement: Placement
) -> None:
    """Copy fragments to host memory, and wait until the copies are complete."""
    for fragment, copy in zip(fragments, copies, strict=True):
        copy.copy_(fragment.tensor, non_blocking=True)
    if placement.device == "cuda":
        torch.cuda.synchronize()


def first_shortage(amounts: Sequence[int], placement: Placement) -> list[int] | None:
    """Return the first rank on whose host memory is short, and its amounts; a collective.

    Args:
        amounts: the bytes that this rank's host needs, then one or more amounts of memory, in
            bytes, that the host has.
        placement: this rank.

    Returns:
        The rank and its amounts, the same on all ranks; None if every host has what it needs.
    """
    table = torch.zeros(placement.world_size, len(amounts), dtype=torch.float64)
    table[placement.rank] = torch.tensor(amounts, dtype=torch.float64)
    table = sum_over_ranks(table, placement)
    short = table[:, 0] > table[:, 1:].min(dim=1).values
    if not short.any():
        return None
    rank = int(short.nonzero()[0])
    return [rank, *(int(amount) for amount in table[rank].tolist())]


def require_host_memory(owned: Iterable[Fragment], placement: Placement) -> None:
    """Check that every host has enough memory for the copies of all its ranks; a collective.

    Call it before any rank allocates its copy.

    Raises:
        CheckpointError: one of the hosts has too little memory; raised on all ranks.
    """
    # Ranks of a node own about equal shares.
    needed = share_bytes(owned) * placement.local_world_size
    if shortage := first_shortage([needed, available_bytes()], placement):
        rank, needed, available = shortage
        raise CheckpointError(
            f"Writing checkpoints while training needs {needed / 1e9:.2f} GB of host memory for "
            f"all ranks on the node of rank {rank}, but only {available / 1e9:.2f} GB are free. "
            "Free some memory, or spread the ranks over more nodes"
        )


def pin(buffer: torch.Tensor) -> None:
    """Pin memory, so that the GPU can copy to it directly.

    Torch's `pin_memory` would round the allocation up to the next power of two.
    """
    portable = 1
    torch.cuda.check_error(
        torch.cuda.cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, portable)
    )


def unpin(buffer: torch.Tensor) -> None:
    """Undo `pin`."""
    torch.cuda.check_error(torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr()))
