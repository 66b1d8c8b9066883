"""Start of ranks without importing torch's compiler, which they do not use.

See docs/decisions/what-we-tried.md. Importing the compiler takes two seconds of each start, two
thirds of torch's import time. Three places of torch 2.13 and DeepSpeed 0.19.8 import it although
ranks do not need it there:

  1. torch excludes some functions from compilation, and imports the compiler to do so unless the
     functions are already marked as excluded (`torch._compile._disable_dynamo`);
  2. the `step` of torch's optimizers inserts a graph break for the compiler
     (`_use_grad_for_differentiable`);
  3. DeepSpeed checks whether an optimizer is Muon, parts of which are compiled on import.

ZeRO stage 3 and activation checkpointing still import the compiler, in too many places to prevent.
"""

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.optim import Optimizer

_MARKED = (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict)
_adam_step = inspect.unwrap(torch.optim.Adam.step)


@contextlib.contextmanager
def disable_compiler_imports() -> Iterator[None]:
    """Prevent torch and DeepSpeed from importing the compiler within the context."""
    with mock.patch.object(torch, "compile", _unchanged):
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    with contextlib.ExitStack() as marks:
        for function in (inspect.unwrap(function) for function in _MARKED):
            mark = mock.patch.object(function, "__dynamo_disable", function, create=True)
            marks.enter_context(mark)
        yield


class AdamW(torch.optim.AdamW):
    """Torch's AdamW with a step that does not call the compiler."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        _adam_step(self, closure)


def _unchanged(function: Any = None, **_: Any) -> Any:
    """Return the function unchanged, in place of `torch.compile`; also works as a decorator."""
    return _unchanged if function is None else function
