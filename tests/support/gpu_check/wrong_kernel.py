"""Kernel stage of the GPU check with a planted bug: SDPA ignores that attention is causal."""

from typing import Any

from torch import Tensor

from benchmarks.gpu_check.kernels_stage import rotary, sdpa_causal, sdpa_padded
from model.blocks import attention
from model.config.transformer import AttentionBackend

__all__ = ["rotary", "sdpa_causal", "sdpa_padded"]

_right = attention._BACKENDS[AttentionBackend.SDPA]


def _wrong(
    query: Tensor, keys: Tensor, values: Tensor, mask: Any, causal: bool, p: float
) -> Tensor:
    return _right(query, keys, values, mask, False, p)


attention._BACKENDS[AttentionBackend.SDPA] = _wrong
