"""A rank's share of a checkpoint, written while the training goes on.

A save stops the training for as long as it takes to copy the share to host memory. A thread then
writes the copy to the rank's state file and reports it (`trainer.supervision`); the supervisor
commits the checkpoint when all ranks have reported. One write is in flight at a time, since there
is one copy.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from trainer.checkpoints.commit import partial_folder
from trainer.checkpoints.format import CheckpointHeader, FileRecord
from trainer.checkpoints.state_file import (
    BYTES_PER_ELEMENT,
    fragment_key,
    state_file_name,
    write_state_file,
)
from trainer.distributed import Placement
from trainer.errors import CheckpointError
from trainer.fragments import Fragment
from trainer.host_memory import available_bytes
from trainer.supervision import Supervision

FINAL_RETRY_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 1.0
UNNOTICED_WAIT_SECONDS = 0.1


class CheckpointWriter:
    """Copies a rank's share of the state to host memory and writes it behind the training."""

    def __init__(
        self,
        owned: Callable[[], Iterable[Fragment]],
        *,
        work: Path,
        attempt: str,
        placement: Placement,
        supervision: Supervision,
    ) -> None:
        """``owned`` yields the fragments of this rank, the same ones whenever it is called.

        Raises:
            CheckpointError: the host has too little memory for the copies of its ranks.
        """
        self._owned = owned
        self._work = work
        self._attempt = attempt
        self._placement = placement
        self._supervision = supervision
        self._sizes = _sizes(owned())
        numel = sum(self._sizes.values())
        _require_memory(numel * BYTES_PER_ELEMENT, placement.local_world_size)
        self._buffer = torch.empty(numel, dtype=torch.float32).zero_()  # written, hence in memory
        self._is_pinned = placement.device == "cuda" and numel > 0
        if self._is_pinned:
            _pin(self._buffer)
        self._copies = self._buffer.split(list(self._sizes.values()))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._writing_step = 0

    def save(self, header: CheckpointHeader, *, final: bool) -> float:
        """Begin to write the state as it is now; returns how many seconds the training stood.

        A ``final`` save is over when the file is written; if that fails, it is tried again for
        `FINAL_RETRY_SECONDS`. One that is not final may fail: the supervision is told.

        Raises:
            CheckpointError: a final save has failed.
        """
        started = time.monotonic()
        self._wait()
        waited = time.monotonic() - started
        if waited > UNNOTICED_WAIT_SECONDS:
            self._supervision.notice(
                f"training waited {waited:.1f} s at step {header.step}, because the checkpoint of "
                f"step {self._writing_step} was still being written"
            )
        self._copy()
        self._writing_step = header.step
        self._writing = self._thread.submit(self._write_finally if final else self._write, header)
        if final:
            self._wait()
        return time.monotonic() - started

    def close(self) -> None:
        """Wait for the write in flight."""
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            if self._is_pinned:
                _unpin(self._buffer)

    def _wait(self) -> None:
        """Returns when nothing is being written; raises what the thread has raised."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    @torch.no_grad()
    def _copy(self) -> None:
        fragments = list(self._owned())
        assert _sizes(fragments) == self._sizes
        for copy, fragment in zip(self._copies, fragments, strict=True):
            copy.copy_(fragment.tensor, non_blocking=True)
        if self._placement.device == "cuda":
            torch.cuda.synchronize()

    def _write(self, header: CheckpointHeader) -> None:
        try:
            file = self._write_file(header.step)
        except OSError as error:
            self._supervision.state_failed(
                header.step,
                f"{self._cause(header.step, error)}. Training goes on and the checkpoint before "
                "stands; make room or mend the permissions before the next one",
            )
        else:
            self._supervision.state_written(file, header)

    def _write_finally(self, header: CheckpointHeader) -> None:
        deadline, pause = time.monotonic() + FINAL_RETRY_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            try:
                file = self._write_file(header.step)
                break
            except OSError as error:
                cause, left = self._cause(header.step, error), deadline - time.monotonic()
                if left <= 0:
                    raise CheckpointError(
                        f"{cause}. The checkpoint before stands; make room or mend the "
                        "permissions, then start the same command again"
                    ) from error
            self._supervision.notice(f"{cause}. It is the last one: trying again for {left:.0f} s")
            time.sleep(min(pause, left))
            pause *= 2
        self._supervision.state_written(file, header)

    def _write_file(self, step: int) -> FileRecord:
        path = self._path(step)
        # Not its parents: when they are gone, the run belongs to somebody else.
        path.parent.mkdir(exist_ok=True)
        return write_state_file(path, self._sizes, [self._buffer.view(torch.uint8).numpy().data])

    def _path(self, step: int) -> Path:
        name = state_file_name(self._placement.rank, self._placement.world_size)
        return partial_folder(self._work, step, self._attempt) / name

    def _cause(self, step: int, error: OSError) -> str:
        return f"{self._path(step)} cannot be written: {error.strerror}"


def _sizes(fragments: Iterable[Fragment]) -> dict[str, int]:
    """The number of elements of each fragment, by its name in the file."""
    return {fragment_key(f.kind, f.parameter, f.start): f.tensor.numel() for f in fragments}


def _require_memory(needed: int, ranks: int) -> None:
    """Ranks of a node own about equal shares."""
    available = available_bytes()
    if needed * ranks > available:
        raise CheckpointError(
            f"Writing checkpoints while training needs {needed * ranks / 1e9:.2f} GB of host "
            f"memory on this node ({needed / 1e9:.2f} GB for each of its {ranks} ranks), and "
            f"{available / 1e9:.2f} GB are free. Free some, or spread the ranks over more nodes"
        )


def _pin(buffer: torch.Tensor) -> None:
    """Let the GPU copy to this memory directly. As ``pin_memory`` does, which would take memory
    up to the next power of two."""
    portable = 1
    torch.cuda.check_error(
        torch.cuda.cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, portable)
    )


def _unpin(buffer: torch.Tensor) -> None:
    torch.cuda.check_error(torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr()))
