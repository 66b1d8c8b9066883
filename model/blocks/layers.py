"""Encoder and decoder layers and their stacks (Vaswani et al. 2017, §3.1).

    encoder layer:  self-attention ▶ feed-forward
    decoder layer:  masked self-attention ▶ attention over the encoder's output ▶ feed-forward

Each sub-layer is wrapped in dropout, a residual connection and a layer normalisation.
Shape suffixes as in `model.blocks.attention`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.blocks.attention import CrossAttention, KeyValue, Mask, SelfAttention
from model.blocks.cache import SelfAttentionCache
from model.blocks.dropout import Dropout
from model.blocks.feed_forward import FeedForward, feed_forward_named
from model.blocks.norm import norm_of
from model.blocks.rotary import Rotation
from model.blocks.swiglu import SwiGLU
from model.config.transformer import AttentionBackend, ModelConfig


class ResidualSum(nn.Module):
    """x + dropout(y) (§3.1, §5.4)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, x_btm: Tensor, y_btm: Tensor) -> Tensor:
        """Returns (b, t, m)."""
        return x_btm + self.dropout(y_btm)


class _Layer(nn.Module):
    """What both kinds of layer share: the way around a sub-layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.add = ResidualSum(config.dropout)

    def residual(
        self, x_btm: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module
    ) -> Tensor:
        """Adds the sub-layer's output to its input.

        post: norm(x + dropout(sublayer(x))) (§3.1, §5.4); pre: x + dropout(sublayer(norm(x))).
        """
        y: Tensor
        if self.pre_norm:
            y = self.add(x_btm, sublayer(norm(x_btm)))
        else:
            y = norm(self.add(x_btm, sublayer(x_btm)))
        return y


class EncoderLayer(_Layer):
    """Self-attention and feed-forward."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__(config)
        self.self_attention = SelfAttention(config, backend)
        self.self_attention_norm = norm_of(config)
        self.feed_forward = _feed_forward(config)
        self.feed_forward_norm = norm_of(config)

    def forward(self, x_bsm: Tensor, mask: Mask, rotation: Rotation | None = None) -> Tensor:
        """Returns (b, s, m); `mask` (b, 1, 1, s) hides padding."""
        x_bsm = self.residual(
            x_bsm,
            lambda x: self.self_attention(x, mask, rotation=rotation),
            self.self_attention_norm,
        )
        return self.residual(x_bsm, self.feed_forward, self.feed_forward_norm)


class DecoderLayer(_Layer):
    """Masked self-attention, cross-attention and feed-forward."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__(config)
        self.self_attention = SelfAttention(config, backend)
        self.self_attention_norm = norm_of(config)
        self.cross_attention = CrossAttention(config, backend)
        self.cross_attention_norm = norm_of(config)
        self.feed_forward = _feed_forward(config)
        self.feed_forward_norm = norm_of(config)

    def forward(
        self,
        x_btm: Tensor,
        memory: KeyValue,
        memory_mask: Mask,
        own_mask: Mask | None = None,
        cache: SelfAttentionCache | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Returns (b, t, m).

        Args:
            own_mask: without a cache, tells packed sentences apart; with one, (b, 1, k, p · slots),
                hides all but a hypothesis' own past.
            cache: with it, x is one decoding step; without it, x is a whole sequence and attention
                is causal.
            rotation: of the positions of x; None: there are none to rotate by.
        """
        x_btm = self.residual(
            x_btm,
            lambda x: self.self_attention(x, own_mask, cache is None, cache, rotation),
            self.self_attention_norm,
        )
        x_btm = self.residual(
            x_btm,
            lambda x: self.cross_attention(x, memory, memory_mask),
            self.cross_attention_norm,
        )
        return self.residual(x_btm, self.feed_forward, self.feed_forward_norm)


def _feed_forward(config: ModelConfig) -> FeedForward | SwiGLU:
    return feed_forward_named(config.activation, config.width, config.feed_forward_width)


def _last_norm(config: ModelConfig) -> nn.Module:
    """The norm at the end of a stack, since pre-norm layers leave their sum unnormalised."""
    return norm_of(config) if config.norm == "pre" else nn.Identity()


def run_layer(layer: nn.Module, checkpoint_activations: bool, *inputs: object) -> Tensor:
    """Runs a layer; see `model.networks.transformer.Transformer.checkpoint_activations`."""
    y_btm: Tensor
    if checkpoint_activations and torch.is_grad_enabled():
        y_btm = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=True)
    else:
        y_btm = layer(*inputs)
    return y_btm


class Encoder(nn.Module):
    """The stack of encoder layers."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__()
        layers = [EncoderLayer(config, backend) for _ in range(config.encoder_layers)]
        self.layers = nn.ModuleList(layers)
        self.checkpoint_activations = False
        self.last_norm = _last_norm(config)

    def forward(self, x_bsm: Tensor, mask: Mask, rotation: Rotation | None = None) -> Tensor:
        """Returns the memory (b, s, m)."""
        for layer in self.layers:
            x_bsm = run_layer(layer, self.checkpoint_activations, x_bsm, mask, rotation)
        memory_bsm: Tensor = self.last_norm(x_bsm)
        return memory_bsm


class Decoder(nn.Module):
    """The stack of decoder layers."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__()
        layers = [DecoderLayer(config, backend) for _ in range(config.decoder_layers)]
        self.layers = nn.ModuleList(layers)
        self.checkpoint_activations = False
        self.last_norm = _last_norm(config)

    def project_memory(self, memory_bsm: Tensor) -> list[KeyValue]:
        """Each layer's keys and values of the encoder's output."""
        memories = []
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            memories.append(layer.cross_attention.project_memory(memory_bsm))
        return memories

    def forward(
        self,
        x_btm: Tensor,
        memories: Sequence[KeyValue],
        memory_mask: Mask,
        own_mask: Mask | None = None,
        caches: Sequence[SelfAttentionCache] | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Returns (b, t, m); `memories` and `caches` hold one element per layer."""
        for number, layer in enumerate(self.layers):
            cache = caches[number] if caches is not None else None
            x_btm = run_layer(
                layer,
                self.checkpoint_activations,
                *(x_btm, memories[number], memory_mask, own_mask, cache, rotation),
            )
        hidden_btm: Tensor = self.last_norm(x_btm)
        return hidden_btm
