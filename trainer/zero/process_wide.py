"""Process-wide changes for an engine; undone when the engine is destroyed or cannot be created."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero.linear import zero3_linear_wrap
from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses
from torch import Tensor
from torch.nn import attention
from torch.nn import functional as F

from trainer.process.step_timer import StepTimer
from trainer.zero.disable_compiler import disable_compiler_imports

# Methods of DeepSpeed's backend through which its engine and its ZeRO optimizers communicate, as of
# version 0.19.8.
_COLLECTIVES = (
    *("all_reduce", "all_reduce_coalesced", "reduce", "broadcast", "all_to_all_single"),
    *("all_gather", "all_gather_into_tensor", "all_gather_coalesced"),
    *("reduce_scatter", "reduce_scatter_tensor"),
)


@contextlib.contextmanager
def engine_process_settings(*, exact: bool, compiles: bool = False) -> Iterator[None]:
    """Apply all changes of this file within the context.

    Args:
        exact: whether to compute the same bits in every ZeRO stage. This needs deterministic
            kernels. All stages also have to use the linear function of stage 3, because it rounds
            differently from torch's.
        compiles: whether layers are compiled. Stage 3 is then refused, so all stages use torch's
            linear function, which the compiler can trace.
    """
    kernels = _deterministic_kernels() if exact else contextlib.nullcontext()
    with disable_compiler_imports(), _process_groups_released(), _torch_linear_kept(), kernels:
        if exact and not compiles:
            # DeepSpeed keeps this function even in stage 3.
            F.linear = exact_linear  # type: ignore[assignment]
        yield


def exact_linear(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None = None) -> Tensor:
    """Compute a linear layer, and release gathered weights between passes, as DeepSpeed does."""
    # On CPUs, flattening saves no kernel, and would round differently from earlier versions.
    compute = zero3_linear_wrap if x.device.type == "cpu" else linear_of_rows
    return compute(x, weight_oi, bias_o)


def linear_of_rows(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None = None) -> Tensor:
    """Compute `exact_linear` on flattened rows, so that the product's kernel also adds the bias."""
    rows = zero3_linear_wrap(x.flatten(0, -2), weight_oi, bias_o)
    return rows.unflatten(0, x.shape[:-1])


@contextlib.contextmanager
def timed_collectives(timer: StepTimer) -> Iterator[None]:
    """Measure DeepSpeed's collectives as waits within the context.

    DeepSpeed must be initialized.

    Args:
        timer: the timer of this rank.
    """
    backend = deepspeed.comm.comm.cdb
    for name in _COLLECTIVES:
        setattr(backend, name, _timed(timer, getattr(backend, name)))
    try:
        yield
    finally:
        for name in _COLLECTIVES:
            delattr(backend, name)  # the class has the method


def _timed(timer: StepTimer, collective: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(collective)
    def timed(*arguments: Any, **options: Any) -> Any:
        with timer.wait():
            work = collective(*arguments, **options)
        # An asynchronous collective has only begun, and the rank waits for it later.
        return work if work is None else _TimedWork(timer, work)

    return timed


class _TimedWork:
    """Asynchronous collective whose `wait` is measured."""

    def __init__(self, timer: StepTimer, work: Any) -> None:
        self._timer = timer
        self._work = work

    def wait(self, *arguments: Any, **options: Any) -> Any:
        with self._timer.wait():
            return self._work.wait(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


@contextlib.contextmanager
def _torch_linear_kept() -> Iterator[None]:
    """Restore torch's linear function at the end of the context.

    ZeRO stage 3 replaces torch's function by one that releases gathered weights between passes.
    """
    before = F.linear
    InsertPostInitMethodToModuleSubClasses.linear_bk = before  # the function that stage 3 replaces
    try:
        yield
    finally:
        F.linear = before


@contextlib.contextmanager
def _process_groups_released() -> Iterator[None]:
    """Release DeepSpeed's process groups, so that this process can create others afterwards."""
    try:
        yield
    finally:
        groups = deepspeed.utils.groups
        if groups._WORLD_GROUP is not None:
            # Destroy DeepSpeed's copy of the world group. As long as torch keeps the copy, its
            # threads wake a hundred times a second.
            deepspeed.comm.destroy_process_group(groups._WORLD_GROUP)
        groups._release_process_group_references(group=None)
        deepspeed.comm.comm.cdb = None


@contextlib.contextmanager
def _deterministic_kernels() -> Iterator[None]:
    """Make torch use deterministic kernels, and raise an error for an operation without one.

    Enter this context before the first CUDA matrix product.
    """
    # Without this setting, cuBLAS may split products depending on which of its workspaces are free.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    by_timing, fills = torch.backends.cudnn.benchmark, _fills_uninitialized_memory()
    mode = torch.get_deterministic_debug_mode()
    torch.backends.cudnn.benchmark = False  # a benchmark selects kernels by timing
    # Unlike `use_deterministic_algorithms`, this does not import the compiler.
    torch.set_deterministic_debug_mode("error")
    # Filling new tensors guards against reads of uninitialized memory, but costs a pass over each
    # tensor.
    _fill_uninitialized_memory(False)
    # An extension may have activated FlashAttention-3, whose bits no GPU has verified.
    flash_attention = attention.current_flash_attention_impl()
    if flash_attention is not None:
        attention.restore_flash_attention_impl()
    try:
        yield
    finally:
        if flash_attention is not None:
            attention.activate_flash_attention_impl(flash_attention)
        torch.backends.cudnn.benchmark = by_timing
        torch.set_deterministic_debug_mode(mode)
        _fill_uninitialized_memory(fills)


def _fills_uninitialized_memory() -> bool:
    return bool(torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]


def _fill_uninitialized_memory(fill: bool) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
