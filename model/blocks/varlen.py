"""Attention in a row of packed sentences, where each token sees only its own sentence.

    CUDA  one kernel for all sentences: torch's `varlen_attn`, FlashAttention-2 (Dao 2023)
    CPU   one sentence after another, with the same results

The CPU version is the reference for the kernel. For micro-batches sorted by length, the CPU version
is slower than padding (docs/decisions/0030). Neither version supports dropout of attention weights.

Shape suffixes as in `model.blocks.attention`; a packed batch has one row, so b is 1.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.blocks.packing import PackedMask
from model.errors import ModelError

HALF_PRECISIONS = (torch.bfloat16, torch.float16)
HEAD_WIDTH_MULTIPLE, MAX_HEAD_WIDTH = 8, 256


def packed_attention(
    query_1htd: Tensor,
    keys_1hsd: Tensor,
    values_1hsd: Tensor,
    sentences: PackedMask,
    causal: bool,
) -> Tensor:
    """Return softmax(QKᵀ / √d) V within each sentence (Vaswani et al. 2017, §3.2.1), (1, h, t, d).

    Args:
        causal: True if a query sees only the keys up to its own position.

    Raises:
        ModelError: the GPU's kernel does not support this dtype or head width.
    """
    compute = sentence_by_sentence if query_1htd.device.type == "cpu" else flash
    return compute(query_1htd, keys_1hsd, values_1hsd, sentences, causal)


def flash(
    query_1htd: Tensor,
    keys_1hsd: Tensor,
    values_1hsd: Tensor,
    sentences: PackedMask,
    causal: bool,
) -> Tensor:
    """Compute `packed_attention` with the kernel, which reads tensors (tokens, h, d)."""
    # Import the kernel here, because the import loads torch's compiler, which takes a second and is
    # not needed on CPUs.
    from torch.nn.attention.varlen import varlen_attn

    _check(query_1htd)
    # Views, not copies: the linear layers before and after use the layout (tokens, h, d), too.
    query_thd, keys_shd, values_shd = (
        x[0].transpose(0, 1) for x in (query_1htd, keys_1hsd, values_1hsd)
    )
    mixed_thd = varlen_attn(
        query_thd,
        keys_shd,
        values_shd,
        cu_seq_q=sentences.queries.cu_seqlens,
        cu_seq_k=sentences.keys.cu_seqlens,
        max_q=sentences.queries.max_seqlen,
        max_k=sentences.keys.max_seqlen,
        # visible keys (before, after) a query; -1: all
        window_size=(-1, 0) if causal else (-1, -1),
    )
    assert isinstance(mixed_thd, Tensor)
    return mixed_thd.transpose(0, 1).unsqueeze(0)


def sentence_by_sentence(
    query_1htd: Tensor,
    keys_1hsd: Tensor,
    values_1hsd: Tensor,
    sentences: PackedMask,
    causal: bool,
) -> Tensor:
    """Compute `packed_attention` on any device, in any precision."""
    query_lengths = sentences.queries.cu_seqlens.diff().tolist()
    key_lengths = sentences.keys.cu_seqlens.diff().tolist()
    mixed = [
        F.scaled_dot_product_attention(query, keys, values, is_causal=causal)
        for query, keys, values in zip(
            query_1htd.split(query_lengths, dim=2),
            keys_1hsd.split(key_lengths, dim=2),
            values_1hsd.split(key_lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(mixed, dim=2)


def _check(query_1htd: Tensor) -> None:
    dtype, head_width = query_1htd.dtype, query_1htd.shape[-1]
    if dtype not in HALF_PRECISIONS:
        raise ModelError(
            f"Attention varlen got {dtype} on a GPU, but its kernel takes bfloat16 and float16 "
            "only. Set engine.precision=bf16 or engine.attention=sdpa."
        )
    if head_width % HEAD_WIDTH_MULTIPLE or head_width > MAX_HEAD_WIDTH:
        raise ModelError(
            f"Attention varlen got heads {head_width} wide, but its kernel takes multiples of "
            f"{HEAD_WIDTH_MULTIPLE} up to {MAX_HEAD_WIDTH}. Choose model.heads so that model.width "
            "/ model.heads is such a multiple, or set engine.attention=sdpa."
        )
