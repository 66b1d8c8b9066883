"""Take the branches of a GPU on a CPU.

The code chooses by the type of a tensor's device. Here, functions that choose are replaced by what
they do for a GPU, wherever they were imported. A function that was renamed raises AttributeError.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

import model.blocks.attention
import model.blocks.dropout
import model.blocks.feed_forward
import model.blocks.heads
import model.blocks.linear
import model.losses.loss
import trainer.exact.adamw
import trainer.exact.chunks
import trainer.exact.grids
import trainer.exact.norm
from model.config.transformer import AttentionBackend

PACKAGES = ("model", "trainer", "benchmarks")


@contextlib.contextmanager
def branches_of_a_gpu(*, elements: float = 1.0, targets: float = 1.0) -> Iterator[None]:
    """Compute as on a GPU within the context, with operations of a CPU.

    Vectors and targets are processed in chunks. A small network has as many chunks as a real one if
    they are scaled.

    Args:
        elements: the number of weights divided by that of a real network.
        targets: the number of targets of a micro-batch divided by that of a real one.
    """
    row = trainer.exact.norm.ROW
    chunk = max(1, round(elements * trainer.exact.chunks.CHUNKS["cuda"] / row)) * row
    tokens = math.ceil(targets * model.losses.loss.MIN_CHUNK_TOKENS)
    with contextlib.ExitStack() as stack:
        for function, replacement in (
            (model.blocks.dropout.dropout, _dropout),
            (model.blocks.heads.contiguous_heads, _unchanged),
            (model.blocks.attention.default_backend, _sdpa),
            (model.blocks.feed_forward.gelu_tanh, _gelu_tanh),
            (model.blocks.linear.uses_onednn, _never),
            (trainer.exact.grids.largest_magnitude, _largest_magnitude),
        ):
            _replace_everywhere(function, replacement, stack)
        stack.enter_context(
            mock.patch.object(trainer.exact.adamw.ExactAdamW, "_update_lines", _update_elements)
        )
        stack.enter_context(mock.patch.dict(trainer.exact.chunks.CHUNKS, cpu=chunk))
        stack.enter_context(mock.patch.object(model.losses.loss, "MIN_CHUNK_TOKENS", tokens))
        yield


def _replace_everywhere(
    function: Callable[..., Any], replacement: Callable[..., Any], stack: contextlib.ExitStack
) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in PACKAGES:
            continue
        for key, value in list(vars(module).items()):
            if value is function:
                stack.enter_context(mock.patch.object(module, key, replacement))
            elif isinstance(value, dict):
                for entry in [entry for entry, held in value.items() if held is function]:
                    stack.enter_context(mock.patch.dict(value, {entry: replacement}))


def _dropout(x: Tensor, share: float) -> Tensor:
    return F.dropout(x, share)


def _unchanged(heads: Tensor) -> Tensor:
    return heads


def _sdpa(device: torch.device) -> AttentionBackend:
    return AttentionBackend.SDPA


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _never(device: torch.device, dtype: torch.dtype) -> bool:
    return False


def _largest_magnitude(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient, math.inf)


def _update_elements(self: Any, group: dict[str, Any], steps: Tensor, flat: list[Tensor]) -> None:
    self._update_elements(group, float(steps) + 1, *flat)
