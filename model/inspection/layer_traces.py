"""Records of a layer's tensors in a trace, in the order of the forward pass.

Section numbers are those of Vaswani et al. 2017. Shape suffixes: b batch, h heads, t length
(queries), s length (keys), d width of one head, m model width, f inner width of the feed-forward
network.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

EmbeddingT = TypeVar("EmbeddingT")
LayerT = TypeVar("LayerT")


@dataclass(frozen=True)
class EmbeddingTrace:
    """Steps from ids to the first layer's input (§3.4, §3.5)."""

    scaled_btm: Tensor  # rows of the embedding matrix, times √m
    positions_tm: Tensor  # added positions: zeros if queries and keys are rotated instead
    sum_btm: Tensor


@dataclass(frozen=True)
class AttentionTrace:
    """One multi-head attention (§3.2).

    If positions are rotary, queries and keys of self-attention are recorded after rotation. If
    several query heads share a head of keys and values, that head is repeated for each of them.
    """

    queries_bhtd: Tensor
    keys_bhsd: Tensor
    values_bhsd: Tensor
    scores_bhts: Tensor  # QKᵀ / √d; -∞ where a key is masked
    weights_bhts: Tensor  # softmax of the scores
    mix_bhtd: Tensor  # weights · values, computed by the model's backend
    output_btm: Tensor  # the heads joined and projected by W^O


@dataclass(frozen=True)
class FeedForwardTrace:
    """One feed-forward network (§3.3)."""

    inner_btf: Tensor  # output of the activation, or gated product of SwiGLU
    output_btm: Tensor


@dataclass(frozen=True)
class ResidualTrace:
    """Residual connection around a sub-layer (§3.1), with a norm after the sum or before both.

    Post-norm: input ─▶ sub-layer ─▶ sum with the input ─▶ norm ─▶ output.

    Pre-norm: input ─▶ norm ─▶ sub-layer ─▶ sum with the input ─▶ output.
    """

    input_btm: Tensor
    sum_btm: Tensor
    normed_btm: Tensor
    output_btm: Tensor  # the normed values if post-norm, the sum if pre-norm


@dataclass(frozen=True)
class EncoderLayerTrace:
    """Self-attention and feed-forward."""

    self_attention: AttentionTrace
    self_attention_residual: ResidualTrace
    feed_forward: FeedForwardTrace
    feed_forward_residual: ResidualTrace


@dataclass(frozen=True)
class DecoderLayerTrace:
    """Masked self-attention, cross-attention and feed-forward."""

    self_attention: AttentionTrace
    self_attention_residual: ResidualTrace
    cross_attention: AttentionTrace
    cross_attention_residual: ResidualTrace
    feed_forward: FeedForwardTrace
    feed_forward_residual: ResidualTrace


@dataclass(frozen=True)
class StackTrace(Generic[EmbeddingT, LayerT]):
    """Values of an encoder or decoder, from ids to hidden states."""

    ids_bt: Tensor
    embedding: EmbeddingT
    layers: tuple[LayerT, ...]
    output_btm: Tensor  # after the last norm, if there is one (pre-norm)
