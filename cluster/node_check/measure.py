"""Measure the node of this process: products, memory, storage, free space, and GPU counters.

Each figure is the fastest of short repetitions. It shows what the hardware can do, and depends
little on other processes that take a core for some milliseconds.
"""

import itertools
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cluster.node_check.figures import (
    CheckLevel,
    GpuFigures,
    NodeCheckRequest,
    NodeFigures,
    StorageFigures,
)
from cluster.node_check.gpu_counters import gpu_counters
from cluster.node_check.matrix_product import measure_products, visible_gpu
from cluster.ray.folder_access import existing_part
from trainer.checkpoints.memory_folder import SHARED_MEMORY
from trainer.process.host_memory import available_bytes

MEMORY_SECONDS: dict[CheckLevel, float] = {"quick": 0.1, "full": 1.0}
MEMORY_BYTES = 64 * 2**20  # twice this is larger than the caches of most CPUs
PIECE_BYTES = 4 * 2**20  # a millisecond, so that other processes rarely interrupt
STORAGE_SECONDS: dict[CheckLevel, float] = {"quick": 0.2, "full": 2.0}
STORAGE_BYTES = 4 * 2**20
LEAST_REPEATS = 2
SLOW_SECONDS = 0.3


def measure_node(request: NodeCheckRequest) -> NodeFigures:
    """Return the figures of this node, or only those of this process's GPU."""
    gpus: tuple[GpuFigures, ...] = ()
    if request.device == "cuda":
        uuid = str(torch.cuda.get_device_properties(0).uuid)
        with gpu_counters(visible_gpu(), uuid) as counters:
            products = tuple(measure_products("cuda", request.threads, request.level))
            gpus = (counters.figures(),) if counters else ()
    else:
        products = tuple(measure_products("cpu", request.threads, request.level))
    if request.gpu_only:
        return NodeFigures(products=products, gpus=gpus)
    temporary = Path(tempfile.gettempdir())
    return NodeFigures(
        products=products,
        gpus=gpus,
        memory_bytes_per_second=memory_speed(request.level),
        storage={
            name: measure_storage(folder, request.level)
            for name, folder in {**request.folders, "temporary folder": temporary}.items()
        },
        free_memory_bytes=available_bytes(),
        free_shared_memory_bytes=_free_bytes(SHARED_MEMORY),
    )


def memory_speed(level: CheckLevel) -> float:
    """Return the bytes per second that a copy in memory reads and writes."""
    # Mapped memory returns to the kernel afterwards; a rank's allocator would keep it.
    with mmap.mmap(-1, 2 * MEMORY_BYTES) as mapped:
        return 2 * PIECE_BYTES / _copy_seconds(mapped, MEMORY_SECONDS[level])


def _copy_seconds(memory: mmap.mmap, seconds: float) -> float:
    """Return the duration of the fastest copy of a piece from the first half to the second.

    The pieces follow each other, so none is in a cache.
    """
    source, target = torch.frombuffer(memory, dtype=torch.uint8).view(2, -1, PIECE_BYTES)
    source.fill_(1)
    target.fill_(1)  # the kernel provides pages at the first access
    pieces = itertools.cycle(zip(target, source, strict=True))
    return min(_repeat(lambda: torch.Tensor.copy_(*next(pieces)), seconds))


def measure_storage(folder: Path, level: CheckLevel) -> StorageFigures:
    """Write a temporary file without a name, and return the speed of the fastest write.

    Args:
        folder: the folder; if it does not exist, its nearest parent folder is measured.
    """
    folder = existing_part(folder)
    data = os.urandom(STORAGE_BYTES)

    def write() -> None:
        file.seek(0)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        flush(file.fileno())

    free = _free_bytes(folder) or 0
    try:
        with tempfile.TemporaryFile(buffering=0, dir=folder) as file:
            fastest = min(_repeat(write, STORAGE_SECONDS[level]))
    except OSError as error:
        return StorageFigures(None, free, error.strerror or str(error))
    return StorageFigures(STORAGE_BYTES / fastest, free)


def flush(descriptor: int) -> None:
    """Flush a file to its storage."""
    os.fsync(descriptor)


def _repeat(action: Callable[[], object], seconds: float) -> Iterator[float]:
    """Yield the duration of each repetition of an action, for about `seconds` in total.

    A fast action is repeated at least `LEAST_REPEATS` times, a slow one at least once.
    """
    begin, repeats, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds or (repeats < LEAST_REPEATS and elapsed < SLOW_SECONDS):
        since = time.perf_counter()
        action()
        now = time.perf_counter()
        yield now - since
        repeats, elapsed = repeats + 1, now - begin


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
