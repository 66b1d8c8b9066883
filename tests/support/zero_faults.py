"""Wrong gradients to plant in DeepSpeed's ranks: see trainer/verify_zero.

Each function receives DeepSpeed's engine and the network before the first step.
"""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import deepspeed
from torch import nn
from torch.nn import functional as F

REDUCTIONS = ("all_reduce", "reduce", "reduce_scatter_tensor", "reduce_scatter")
LEAST_ELEMENTS = 100  # minimum elements of a bucket of gradients; norms and flags are smaller


def reduce_a_bucket_twice(engine: Any, network: nn.Module) -> None:
    def twice(reduction: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        work = reduction(*arguments, **options)
        if work is not None:
            work.wait()
        return reduction(*arguments, **options)

    _replace_one(twice)


def leave_out_a_reduction(engine: Any, network: nn.Module) -> None:
    def nothing(reduction: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return SimpleNamespace(wait=lambda: None) if options.get("async_op") else None

    _replace_one(nothing)


def lose_the_second_use_of_a_module(engine: Any, network: nn.Module) -> None:
    """Act like a hook that runs after the first of two gradients of a shared embedding."""
    embedding, uses = F.embedding, iter(range(10**9))

    def half(*arguments: Any, **options: Any) -> Any:
        found = embedding(*arguments, **options)
        return found.detach() if next(uses) % 2 else found

    F.embedding = half


def fail(engine: Any, network: nn.Module) -> None:
    raise ValueError("planted")


def hang(engine: Any, network: nn.Module) -> None:
    time.sleep(1000)


def _replace_one(instead: Callable[..., Any]) -> None:
    """Replace the third reduction of a bucket, by whichever function DeepSpeed reduces it."""
    backend, calls = deepspeed.comm.comm.cdb, iter(range(10**9))
    for name in REDUCTIONS:
        reduction = getattr(backend, name)

        def reduced(
            *arguments: Any, _reduction: Callable[..., Any] = reduction, **options: Any
        ) -> Any:
            is_bucket = arguments[0].numel() >= LEAST_ELEMENTS
            if is_bucket and next(calls) == 2:
                return instead(_reduction, *arguments, **options)
            return _reduction(*arguments, **options)

        setattr(backend, name, reduced)
