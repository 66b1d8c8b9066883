"""Take the branches of a GPU on a CPU.

The code chooses branches by the type of a tensor's device. This module replaces the choosing
functions by their GPU branch, wherever they were imported. If a function has been renamed, it
raises AttributeError.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from torch.nn import functional as F

from model.blocks import attention, dropout, feed_forward, heads, linear
from model.losses import loss
from trainer.exact import adamw, chunks, grids, norm
from trainer.zero import gradient_buckets, process_wide, stages
from trainer.zero.engine import TrainingEngine

REPLACEMENTS: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
    (dropout.dropout, lambda x, share: F.dropout(x, share)),
    (heads.contiguous_heads, lambda x: x),
    (attention.default_backend, lambda device: attention.AttentionBackend.SDPA),
    (feed_forward.gelu_tanh, lambda x: F.gelu(x, approximate="tanh")),
    (linear.uses_onednn, lambda device, dtype: False),
    (grids.largest_magnitudes, grids.magnitudes_by_kernels),
    (TrainingEngine._to_watch, lambda self, gradients: grids.magnitudes_by_kernels(gradients)),
    (stages.adds_other_types, lambda tensor: False),
    (adamw.updates_by_lines, lambda parameter: False),
    (process_wide.exact_linear, process_wide.linear_of_rows),
)


@contextlib.contextmanager
def branches_of_a_gpu(*, weights: float, targets: float, vocabulary: int) -> Iterator[None]:
    """Compute as on a GPU within the context, with operations of a CPU.

    Weights and targets are processed in chunks. With smaller chunks, a small network has as many of
    them as a real one.

    Args:
        weights: the number of weights divided by that of a real network.
        targets: the number of targets of a micro-batch divided by that of a real one.
        vocabulary: the number of entries of a real network's vocabulary.
    """
    rows = round(weights * chunks.CHUNKS["cuda"] / norm.ROW)
    tokens = math.ceil(targets * loss.GPU_CHUNK_LOGITS / vocabulary)
    capacity = math.ceil(weights * gradient_buckets.CAPACITY["cuda"])
    with contextlib.ExitStack() as stack:
        for function, replacement in (*REPLACEMENTS, (loss.tokens_per_chunk, lambda *_: tokens)):
            for change in _changes(function, replacement):
                stack.enter_context(change)
        stack.enter_context(mock.patch.dict(chunks.CHUNKS, cpu=max(1, rows) * norm.ROW))
        stack.enter_context(mock.patch.dict(gradient_buckets.CAPACITY, cpu=capacity))
        yield


def _changes(function: Callable[..., Any], replacement: Callable[..., Any]) -> Iterator[Any]:
    """Yield a context for each name, entry and method of the loaded modules that is a function."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in ("model", "trainer"):
            continue
        for owner in (module, *(one for one in vars(module).values() if isinstance(one, type))):
            for key, value in list(vars(owner).items()):
                if value is function:
                    yield mock.patch.object(owner, key, replacement)
                elif isinstance(value, dict):
                    for entry in [entry for entry in value if value[entry] is function]:
                        yield mock.patch.dict(value, {entry: replacement})
