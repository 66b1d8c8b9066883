"""Kernels that give the same bits each time, or an error that says which one does not."""

import os

import torch


def use_deterministic_kernels(on: bool) -> None:
    """Ask torch for them in this process; to be called before the first CUDA matrix product."""
    if on:
        # Without it cuBLAS may split products as its workspaces happen to be free.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False  # kernels chosen by timing
    torch.use_deterministic_algorithms(on)
    # A guard against reading memory before writing it, which costs a pass over each new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = not on  # type: ignore[attr-defined]
