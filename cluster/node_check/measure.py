"""Measure the node of this process: its clock, device and storage."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from cluster.node_check.figures import CheckLevel, Device, GpuFigures, NodeFigures, StorageFigures
from cluster.node_check.gpu_counters import gpu_counters
from cluster.node_check.matrix_product import measure_products, visible_gpu
from cluster.ray.folder_access import existing_part

STORAGE_BYTES = 4 * 2**20  # size of the file written to each storage


def clock() -> float:
    """Return this node's time, in seconds since the epoch."""
    return time.time()


def measure_node(
    device: Device, threads: int, level: CheckLevel, folders: Mapping[str, Path]
) -> NodeFigures:
    """Return the figures of this node, with those of this process's GPU.

    Args:
        device: the device of the ranks.
        threads: the number of CPU threads that torch computes with.
        folders: folders whose storage is measured besides the temporary folder, by their names in
            messages.
    """
    gpus: tuple[GpuFigures, ...] = ()
    if device == "cuda":
        uuid = str(torch.cuda.get_device_properties(0).uuid)
        with gpu_counters(visible_gpu(), uuid) as counters:
            products = measure_products(device, threads, level)
            gpus = (counters.figures(),) if counters else ()
    else:
        products = measure_products(device, threads, level)
    folders = {**folders, "temporary folder": Path(tempfile.gettempdir())}
    storage = {name: measure_storage(folder) for name, folder in folders.items()}
    return NodeFigures(products, storage, gpus)


def measure_storage(folder: Path) -> StorageFigures:
    """Return the free space of a folder, and the problem if no file can be written there.

    Args:
        folder: the folder; if it does not exist, its nearest parent folder is measured.
    """
    folder, free = existing_part(folder), 0
    try:
        free = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(os.urandom(STORAGE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return StorageFigures(free, error.strerror or str(error))
    return StorageFigures(free)
