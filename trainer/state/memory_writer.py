"""Writer of a rank's share of the state to its node's memory, for a fast restart.

    state ──copy, while training stops──▶ slot ──checksum, in a thread──▶ MemoryFile ──▶ supervisor

A rank has two slots, which are files in the node's memory. One slot keeps the newest step whose
files the supervisor has confirmed on all nodes. The other slot receives the next step. So if a rank
is killed while it copies, the state that the run then needs is intact. Until the supervisor has
confirmed or given up the last step, the writer skips saves. It reports every save to the
supervisor, as written or as failed, so that the supervisor can give up incomplete steps.
"""

import mmap
import os
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch

from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.memory_file import SLOTS, MemoryFile, MemorySteps
from run_store.checkpoints.memory_folder import SHARED_MEMORY, free_bytes, used_bytes
from run_store.checkpoints.state_file import BYTES_PER_ELEMENT, state_file_name, state_header
from run_store.errors import CheckpointError
from trainer.process.host_memory import available_bytes
from trainer.process.placement import Placement
from trainer.state.checkpoint_writer import (
    copy_fragments,
    first_shortage,
    fragment_sizes,
    pin,
    share_bytes,
    unpin,
)


class MemoryListener(Protocol):
    """Supervisor of a memory writer, implemented by `trainer.job.rank_job.Supervision`."""

    def notice(self, text: str) -> None: ...

    def memory_written(self, file: MemoryFile, header: CheckpointHeader) -> None: ...

    def memory_failed(self, step: int) -> None: ...

    def memory_steps(self) -> MemorySteps: ...


class _Slot:
    """File in the node's memory, mapped into this process."""

    def __init__(self, path: Path, header: bytes, numel: int) -> None:
        """Create the file and allocate its memory.

        Raises:
            OSError: the node's `/dev/shm` has too little space.
        """
        self.path = path
        self.bytes = len(header) + numel * BYTES_PER_ELEMENT
        self.step = 0
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            # Without this, a full /dev/shm would kill the process at its first access to a page.
            os.posix_fallocate(file, 0, self.bytes)
            self.content = mmap.mmap(file, self.bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            os.close(file)
        self.content[: len(header)] = header
        self.data = torch.frombuffer(
            self.content, dtype=torch.float32, count=numel, offset=len(header)
        )

    def crc32(self) -> int:
        return zlib.crc32(self.content)  # releases the GIL


class MemoryWriter:
    """Writer of a rank's share to two slots in its node's memory."""

    def __init__(
        self,
        owned: Callable[[], Iterable[Fragment]],
        *,
        folder: Path,
        placement: Placement,
        supervision: MemoryListener,
        sync_record: Callable[[], None] = lambda: None,
        slots_at_start: int = SLOTS,
    ) -> None:
        """Begin to allocate slots in a thread.

        Args:
            owned: returns the fragments that this rank owns; every call returns the same fragments.
            folder: the attempt's folder in the node's memory, which exists.
            placement: this rank and its device.
            supervision: receives notices and finished files.
            sync_record: as in `trainer.state.checkpoint_writer.CheckpointWriter`.
            slots_at_start: 1 if the node still keeps the state from which this attempt restored.
                The second slot is then allocated when the first step is confirmed, so that the
                node never keeps three states.
        """
        self._owned = owned
        self._supervision = supervision
        self._sync_record = sync_record
        self._placement = placement
        self._is_pinned = placement.device == "cuda"
        self._sizes = fragment_sizes(owned())
        name = state_file_name(placement.rank, placement.world_size)
        self._paths = [folder / f"{name}.{number}" for number in range(SLOTS)]
        self._slots: list[_Slot] = []
        self._pending_step = 0
        self._skips_reported = False
        self._is_off = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory-checkpoint")
        self._work: Future[None] = self._thread.submit(self._allocate, slots_at_start)

    def save(self, header: CheckpointHeader) -> float:
        """Copy the current state to a slot, unless the previous save is still in progress.

        Returns:
            The number of seconds for which training was stalled.
        """
        started = time.monotonic()
        slot = self._free_slot(header.step)
        if slot is None:
            self._supervision.memory_failed(header.step)
            return 0.0
        slot.step = self._pending_step = header.step
        self._copy(slot)
        self._work = self._thread.submit(self._finish, slot, header)
        return time.monotonic() - started

    def close(self) -> None:
        """Wait for the thread; the files remain for the next attempt."""
        self._thread.shutdown()
        if self._is_pinned:
            for slot in self._slots:
                unpin(slot.data)

    def _free_slot(self, step: int) -> _Slot | None:
        """Return a slot for the next step, or None if none is free yet."""
        if self._is_off:
            return None
        steps = self._supervision.memory_steps()
        if not self._work.done() or steps.settled < self._pending_step:
            if self._pending_step and not self._skips_reported:
                self._skips_reported = True
                self._supervision.notice(
                    f"the memory checkpoint of step {step} is skipped, because that of step "
                    f"{self._pending_step} is not complete on all nodes yet. Increase "
                    "checkpoints.memory_every_steps if this happens often (reported once)"
                )
            return None
        self._work.result()
        free = [slot for slot in self._slots if not steps.held or slot.step != steps.held]
        if free:
            return free[0]
        # allocate the second slot, because the first step is confirmed now
        self._work = self._thread.submit(self._allocate, 1)
        return None

    def _allocate(self, slots: int) -> None:
        path = self._paths[0]
        try:
            for _ in range(slots):
                path = self._paths[len(self._slots)]
                slot = _Slot(path, state_header(self._sizes), sum(self._sizes.values()))
                if self._is_pinned:
                    pin(slot.data)
                self._slots.append(slot)
        except OSError as error:
            self._is_off = True
            self._supervision.notice(
                f"memory checkpoints are off: {path} cannot be created: {error.strerror}"
            )

    @torch.no_grad()
    def _copy(self, slot: _Slot) -> None:
        copies = slot.data.split(list(self._sizes.values()))
        copy_fragments(self._owned(), copies, self._placement)

    def _finish(self, slot: _Slot, header: CheckpointHeader) -> None:
        try:
            self._sync_record()
        except CheckpointError as error:
            self._supervision.notice(f"there is no memory checkpoint of step {slot.step}: {error}")
            self._supervision.memory_failed(slot.step)
            return
        file = MemoryFile(slot.path, slot.bytes, slot.crc32())
        self._supervision.memory_written(file, header)


def memory_tier_problem(owned: Iterable[Fragment], placement: Placement) -> str:
    """Return why the nodes have too little memory for the memory tier, or an empty text.

    A collective. Every node keeps the slots of its ranks, and copies of the slots of another node's
    ranks. All ranks return a text if one of them does; only rank 0 needs to show it.
    """
    assert placement.memory_folder is not None
    ranks = placement.local_world_size + placement.memory_neighbor_ranks
    needed = SLOTS * share_bytes(owned) * ranks
    space = free_bytes(placement.memory_folder.parent)
    memory = available_bytes() + used_bytes(placement.memory_folder.parent)
    shortage = first_shortage([needed, space, memory], placement)
    if shortage is None:
        return ""
    rank, needed, space, memory = shortage
    node = f"the node of rank {rank}"
    if needed > space:
        return (
            f"they need {needed / 1e9:.2f} GB of {SHARED_MEMORY} on {node}, which has "
            f"{space / 1e9:.2f} GB free. Enlarge it (`mount -o remount,size=...`, docker's "
            "`--shm-size`, or a Kubernetes emptyDir of medium Memory), or set "
            "checkpoints.memory_every_steps to 0"
        )
    return (
        f"they need {needed / 1e9:.2f} GB of memory on {node}, which has {memory / 1e9:.2f} GB "
        "available. Use more nodes, or set checkpoints.memory_every_steps to 0"
    )
