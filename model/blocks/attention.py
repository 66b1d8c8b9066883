"""Scaled dot-product and multi-head attention (Vaswani et al. 2017, §3.2).

    x ──Linear──▶ queries, keys, values of every head ──attention()──▶ mix ──Linear──▶ out

The mix is the sum of the values, weighted for each query. `attention` is the only function that
combines queries and keys. Its backends are interchangeable. The default was chosen by measurements
(`default_backend`). Fused kernels never store scores and weights; `attention_scores` and
`attention_weights` compute them where they are needed.

Self-attention is the same in all networks. It projects queries, keys and values with one fused
matrix. Cross-attention has one matrix for the queries, and another for the keys and values of the
encoder's output (the memory). Decoding therefore computes these keys and values only once per
sentence. Both kinds of attention may have fewer heads of keys and values than of queries
(`model.blocks.heads`). Packed sentences are a batch of one row, with a `PackedMask` in place of the
mask.

Shape suffixes: b batch, h heads, g heads of keys and values, t query length, s key length, d width
of one head, m model width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks.cache import KeyValueCache
from model.blocks.dropout import dropout as zero_some
from model.blocks.heads import contiguous_heads, repeat_key_value_heads, split_heads
from model.blocks.linear import Linear
from model.blocks.packing import PackedMask
from model.blocks.rotary import Rotation
from model.blocks.varlen import packed_attention
from model.config.layers import LayersConfig
from model.config.transformer import AttentionBackend
from model.errors import ModelError

# A tensor is added to the scores (`additive_mask`); a PackedMask separates packed sentences.
Mask = Tensor | PackedMask

VECTOR_FLOATS = 16  # fp32 numbers in a vector of a CPU with AVX-512
LONG_ROW = 256  # minimum number of keys of a long row of scores


class KeyValue(NamedTuple):
    """Keys and values of all key and value heads, both (b, g, s, d)."""

    keys_bgsd: Tensor
    values_bgsd: Tensor


def refuse_packed_dropout(
    backend: AttentionBackend | None, attention_dropout: float, *, without: str = ""
) -> None:
    """Raise ModelError if attention weights of packed sentences would have dropout.

    Args:
        without: words after the remedy "Set model.attention_dropout=0", such as ", as in the
            paper".

    Raises:
        ModelError: the backend is VARLEN, and the dropout is not 0.
    """
    if backend is AttentionBackend.VARLEN and attention_dropout:
        raise ModelError(
            f"engine.attention is {backend} and model.attention_dropout is {attention_dropout}, "
            "but attention over packed sentences has no dropout. Set model.attention_dropout=0"
            f"{without}, or engine.attention=sdpa."
        )


def default_backend(device: torch.device) -> AttentionBackend:
    """Return the faster backend for this device.

    Measured on a CPU (AMD EPYC, torch 2.13.0, 2026-11-21): forward and backward pass of a causal
    and a masked attention, in milliseconds. The left half has about 2,500 tokens in 4 heads of
    width 32, the right half 1,000 tokens in 8 heads of width 64. The second header row gives the
    tokens per sentence:

                              2,500 tokens              1,000 tokens
                           8    25    64   128       8    25    64   128
        fp32, 1 thread
               sdpa      9.3   9.2  11.7  18.6    12.6  13.9  16.2  24.6
               matmul    7.2   8.3  12.9  22.9    10.7  12.6  17.4  25.3
        fp32, 2 threads
               sdpa     17.9   9.4  18.9  22.2    37.2  18.0  17.4  21.2
               matmul    4.7   5.4   9.0  13.2     6.6   7.7   9.4  16.2

    In bf16, with up to 25 tokens per sentence, sdpa takes four to seven times as long as matmul,
    due to conversions in its backward pass (docs/decisions/0014). For sentences of many hundred
    tokens, try `engine.attention: sdpa`.
    """
    return AttentionBackend.MATMUL if device.type == "cpu" else AttentionBackend.SDPA


def attention(
    query_bhtd: Tensor,
    keys_bhsd: Tensor,
    values_bhsd: Tensor,
    *,
    mask: Mask | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    backend: AttentionBackend | None = None,
) -> Tensor:
    """Return softmax(QKᵀ / √d) V (§3.2.1), shape (b, h, t, d).

    Args:
        mask: an `additive_mask` that broadcasts to (b, h, t, s); every query must see at least one
            key. Packed sentences (b is 1) have a `PackedMask`, even if attention is causal.
        causal: True to let query t see only keys 0…t (§3.2.3). It cannot be combined with an
            additive mask, and needs none: padding is at the end of each row, where no real query
            sees it.
        dropout: share of attention weights that are set to zero; 0 for packed sentences.
        backend: backend, or None for the default, which was chosen by measurements.
    """
    if isinstance(mask, PackedMask):
        assert dropout == 0, "packed sentences take no attention dropout"
        return packed_attention(query_bhtd, keys_bhsd, values_bhsd, mask, causal)
    assert not (causal and mask is not None), "a causal attention takes no mask"
    backend = _resolved(backend, query_bhtd.device)
    return _BACKENDS[backend](query_bhtd, keys_bhsd, values_bhsd, mask, causal, dropout)


def additive_mask(visible: Tensor) -> Tensor:
    """Return a mask that is 0 at `visible` keys and -∞ at all other keys.

    The mask is created once for all layers. On a CPU, adding it to the scores takes a tenth of the
    time that filling in -∞ with a broadcast boolean mask takes.

    Args:
        visible: boolean, true where a query may attend to a key.
    """
    return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, float("-inf"))


def mask_of_type(mask: Mask | None, x_btm: Tensor, backend: AttentionBackend | None) -> Mask | None:
    """Return the mask, converted once for all layers to the type in which `attention` adds it.

    Args:
        x_btm: the input of the layers, whose type queries have.
        backend: as in `attention`.
    """
    if not isinstance(mask, Tensor):
        return mask
    uses_sdpa = _resolved(backend, mask.device) is AttentionBackend.SDPA
    return mask.to(x_btm.dtype if uses_sdpa else _dtype_of_softmax(mask, x_btm.dtype))


def _resolved(backend: AttentionBackend | None, device: torch.device) -> AttentionBackend:
    if backend is None or backend is AttentionBackend.VARLEN:  # VARLEN decodes padded batches, too
        return default_backend(device)
    return backend


def _sdpa(
    query_bhtd: Tensor,
    keys_bhsd: Tensor,
    values_bhsd: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout: float,
) -> Tensor:
    if mask is not None:
        mask = mask.to(query_bhtd.dtype)
    return F.scaled_dot_product_attention(
        query_bhtd, keys_bhsd, values_bhsd, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )


def _matmul(
    query_bhtd: Tensor,
    keys_bhsd: Tensor,
    values_bhsd: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout: float,
) -> Tensor:
    weights_bhts = attention_weights(attention_scores(query_bhtd, keys_bhsd, mask, causal))
    return zero_some(weights_bhts.to(values_bhsd.dtype), dropout) @ values_bhsd


def attention_scores(
    query_bhtd: Tensor, keys_bhsd: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    """Return QKᵀ / √d, (b, h, t, s), with -∞ at masked keys.

    The scores may be fp32 even if queries and keys are bf16: see `attention_weights`.
    """
    scaled_bhtd = query_bhtd * query_bhtd.shape[-1] ** -0.5
    scores_bhts = scaled_bhtd @ keys_bhsd.transpose(-1, -2)
    if causal:
        t, s = scores_bhts.shape[-2:]
        mask = scores_bhts.new_full((t, s), float("-inf")).triu_(1)
    if mask is None:
        return scores_bhts
    # Not in place, so that the sum of bf16 and fp32 is fp32 without another pass.
    return scores_bhts + mask.to(_dtype_of_softmax(scores_bhts, scores_bhts.dtype))


def attention_weights(scores_bhts: Tensor) -> Tensor:
    """Return the weight of each value for each query, (b, h, t, s); rows sum to 1.

    On a CPU, torch's softmax is slow in two cases: for the elements that follow the last full
    vector of a row, especially in bf16, and for rows shorter than a vector. So rows shorter than
    `LONG_ROW` are computed and returned in fp32, and rows shorter than a vector are padded.
    """
    dtype = _dtype_of_softmax(scores_bhts, scores_bhts.dtype)
    keys = scores_bhts.shape[-1]
    # One compiled graph serves rows of all lengths.
    if scores_bhts.device.type != "cpu" or torch.compiler.is_compiling() or keys >= VECTOR_FLOATS:
        return torch.softmax(scores_bhts, dim=-1, dtype=dtype)
    padded_bhts = F.pad(scores_bhts.to(dtype), (0, VECTOR_FLOATS - keys), value=float("-inf"))
    return torch.softmax(padded_bhts, dim=-1)[..., :keys]


def _dtype_of_softmax(rows: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the type in which the softmax of scores of type `dtype` is computed.

    `rows` are the scores or their mask.
    """
    short = torch.compiler.is_compiling() or rows.shape[-1] < LONG_ROW
    short = short and rows.device.type == "cpu"
    return torch.float32 if short else dtype


_BACKENDS: dict[AttentionBackend, Callable[..., Tensor]] = {
    AttentionBackend.SDPA: _sdpa,
    AttentionBackend.MATMUL: _matmul,
}


class ScaledDotProductAttention(nn.Module):
    """`attention` as a module, so that hooks receive its arguments and its result."""

    def __init__(self, dropout: float, backend: AttentionBackend | None) -> None:
        super().__init__()
        self.dropout = dropout
        self.backend = backend

    def forward(
        self,
        query_bhtd: Tensor,
        keys_bhsd: Tensor,
        values_bhsd: Tensor,
        mask: Mask | None,
        causal: bool,
    ) -> Tensor:
        """Return the weighted sums of the values, (b, h, t, d)."""
        return attention(
            query_bhtd,
            keys_bhsd,
            values_bhsd,
            mask=mask,
            causal=causal,
            dropout=self.dropout if self.training else 0.0,
            backend=self.backend,
        )


class _MultiHead(nn.Module):
    """Heads and their projections, common to self- and cross-attention (§3.2.2)."""

    output: Linear  # W^O

    def __init__(
        self, config: LayersConfig, backend: AttentionBackend | None, **inputs: int
    ) -> None:
        """Build the projections.

        Args:
            inputs: for each input projection, the total number of heads that it computes; heads of
                queries, keys and values all count.
        """
        super().__init__()
        self.heads = config.heads
        self.groups = config.groups
        self.head_width = config.head_width
        self.attention = ScaledDotProductAttention(config.attention_dropout, backend)
        names = [*inputs, "output"] if config.in_order_of_use else ["output", *inputs]
        for name in names:
            rows = inputs.get(name, config.heads) * config.head_width
            self.add_module(name, Linear(config.width, rows, config.bias))

    def attend(
        self, query_bhtd: Tensor, memory: KeyValue, mask: Mask | None, causal: bool = False
    ) -> Tensor:
        """Attend in every head, concatenate the heads, and return their projection (b, t, m)."""
        keys_bhsd, values_bhsd = (repeat_key_value_heads(part, self.heads) for part in memory)
        # Positional arguments, because forward hooks receive no keyword arguments.
        mixed_bhtd: Tensor = self.attention(query_bhtd, keys_bhsd, values_bhsd, mask, causal)
        mixed: Tensor = self.output(mixed_bhtd.transpose(1, 2).flatten(2))
        return mixed


class SelfAttention(_MultiHead):
    """Attention of every position to positions of the same sequence."""

    query_key_value: Linear

    def __init__(self, config: LayersConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__(config, backend, query_key_value=config.heads + 2 * config.groups)

    def forward(
        self,
        x_btm: Tensor,
        mask: Mask | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Return the output (b, t, m).

        Args:
            causal: see `attention`.
            cache: stores the keys and values of x, and returns them with those of earlier
                positions; None if there is no cache.
            rotation: rotation for the positions of x, or None without rotary positions.
        """
        query_bhtd, *own = split_heads(
            self.query_key_value(x_btm), self.heads, self.groups, self.head_width, rotation
        )
        keys_and_values = own if cache is None else cache.append(*own)
        return self.attend(query_bhtd, KeyValue(*keys_and_values), mask, causal)


class CrossAttention(_MultiHead):
    """Attention of every decoder position to the encoder's output, the memory.

    Queries and keys are not rotated: distances between target and source positions mean little.
    """

    query: Linear
    key_value: Linear

    def __init__(self, config: LayersConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__(config, backend, query=config.heads, key_value=2 * config.groups)

    def project_memory(self, memory_bsm: Tensor) -> KeyValue:
        """Return keys and values of the memory, the same for every decoding step."""
        heads_bsnd = self.key_value(memory_bsm).unflatten(2, (2, self.groups, self.head_width))
        return KeyValue(*contiguous_heads(heads_bsnd.permute(2, 0, 3, 1, 4)).unbind(0))

    def forward(self, x_btm: Tensor, memory: KeyValue, memory_mask: Mask | None) -> Tensor:
        """Return the output (b, t, m); `memory_mask` (b, 1, 1, s) hides the source's padding."""
        query_bhtd = contiguous_heads(
            self.query(x_btm).unflatten(2, (self.heads, -1)).transpose(1, 2)
        )
        return self.attend(query_bhtd, memory, memory_mask)
