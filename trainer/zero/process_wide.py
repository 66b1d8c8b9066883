"""What an engine changes for its whole process, put back when the engine goes or is not made."""

import contextlib
from collections.abc import Iterator

import deepspeed
from deepspeed.runtime.zero.linear import zero3_linear_wrap
from torch.nn import functional as F

from trainer.exact.kernels import deterministic_kernels
from trainer.zero.without_compiler import without_compiler


@contextlib.contextmanager
def changed_for_an_engine(*, exact: bool) -> Iterator[None]:
    """Make all of these changes for the time of the context.

    Args:
        exact: ask for the same bits in every stage: deterministic kernels, and in all stages the
            linear function that stage 3 puts in the place of torch's, which rounds differently.
    """
    kernels = deterministic_kernels() if exact else contextlib.nullcontext()
    with without_compiler(), _process_groups_released(), _torch_linear_kept(), kernels:
        if exact:
            F.linear = zero3_linear_wrap
        yield


@contextlib.contextmanager
def _torch_linear_kept() -> Iterator[None]:
    """Put back torch's linear function at the end.

    Stage 3 replaces it by one that lets go of gathered weights between passes.
    """
    before = F.linear
    try:
        yield
    finally:
        F.linear = before


@contextlib.contextmanager
def _process_groups_released() -> Iterator[None]:
    """Release DeepSpeed's process groups, so that this process can have others afterwards."""
    try:
        yield
    finally:
        groups = deepspeed.utils.groups
        if groups._WORLD_GROUP is not None:
            # DeepSpeed's copy of the world group: while torch has it, its threads wake a hundred
            # times a second.
            deepspeed.comm.destroy_process_group(groups._WORLD_GROUP)
        groups._release_process_group_references(group=None)
        deepspeed.comm.comm.cdb = None
