"""Kernels that give the same bits each time, or an error that names the one that does not."""

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Ask torch for deterministic kernels in this process.

    To be entered before the first CUDA matrix product.
    """
    # Without it, cuBLAS may split products depending on which of its workspaces are free.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    by_timing, fills = torch.backends.cudnn.benchmark, _fills_uninitialized_memory()
    mode = torch.get_deterministic_debug_mode()
    torch.backends.cudnn.benchmark = False  # kernels chosen by timing
    # Unlike `use_deterministic_algorithms`, this does not import the compiler to tell it as well.
    torch.set_deterministic_debug_mode("error")
    # A guard against reading memory before writing it; it costs a pass over each new tensor.
    _fill_uninitialized_memory(False)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = by_timing
        torch.set_deterministic_debug_mode(mode)
        _fill_uninitialized_memory(fills)


def _fills_uninitialized_memory() -> bool:
    return bool(torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]


def _fill_uninitialized_memory(fill: bool) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
