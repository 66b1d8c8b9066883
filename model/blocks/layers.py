"""Layer that all networks share, and stacks of layers (Vaswani et al. 2017, §3.1).

    encoder              self-attention ▶ feed-forward
    decoder-only         masked self-attention ▶ feed-forward
    decoder              masked self-attention ▶ attention to the encoder's output ▶ feed-forward

Each sub-layer is wrapped in dropout, a residual connection and a norm:

    post   x ─▶ norm(x + dropout(sub-layer(x)))   the paper, BERT
    pre    x ─▶ x + dropout(sub-layer(norm(x)))   GPT-2, Llama (Xiong et al. 2020)

Shape suffixes as in `model.blocks.attention`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.blocks.attention import CrossAttention, KeyValue, Mask, SelfAttention, mask_of_type
from model.blocks.cache import KeyValueCache
from model.blocks.dropout import Dropout
from model.blocks.feed_forward import FeedForward, feed_forward_of
from model.blocks.norm import norm_of
from model.blocks.rotary import Rotation
from model.blocks.swiglu import SwiGLU
from model.config.layers import LayersConfig
from model.config.transformer import AttentionBackend, ModelConfig


class ResidualSum(nn.Module):
    """Residual sum x + dropout(y) (Vaswani et al. 2017, §3.1, §5.4)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, x_btm: Tensor, y_btm: Tensor) -> Tensor:
        """Return the sum (b, t, m)."""
        return x_btm + self.dropout(y_btm)


class Layer(nn.Module):
    """Self-attention, optional cross-attention to a memory, and a feed-forward network."""

    self_attention: SelfAttention
    self_attention_norm: nn.Module
    cross_attention: CrossAttention
    cross_attention_norm: nn.Module
    feed_forward: FeedForward | SwiGLU
    feed_forward_norm: nn.Module

    def __init__(
        self,
        config: LayersConfig,
        backend: AttentionBackend | None = None,
        *,
        causal: bool = False,
        reads_memory: bool = False,
    ) -> None:
        """Build the layer.

        Args:
            causal: True if a position attends only to itself and its past.
            reads_memory: True if the layer has cross-attention.
        """
        super().__init__()
        self.pre_norm = config.pre_norm
        self.causal = causal
        self.add = ResidualSum(config.dropout)
        self._add_sublayer(config, "self_attention", SelfAttention(config, backend))
        if reads_memory:
            self._add_sublayer(config, "cross_attention", CrossAttention(config, backend))
        self._add_sublayer(config, "feed_forward", feed_forward_of(config))

    def _add_sublayer(self, config: LayersConfig, name: str, sublayer: nn.Module) -> None:
        modules = [(name, sublayer), (f"{name}_norm", norm_of(config))]
        for each in reversed(modules) if config.in_order_of_use else modules:
            self.add_module(*each)

    def forward(
        self,
        x_btm: Tensor,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        cache: KeyValueCache | None = None,
        memory: KeyValue | None = None,
        memory_mask: Mask | None = None,
    ) -> Tensor:
        """Return the layer's output (b, t, m).

        Args:
            mask: mask of self-attention. In a causal layer, a tensor must hide future positions,
                too; if the mask is None or a `PackedMask`, the layer hides them itself.
            rotation: rotation for the positions of x, or None without rotary positions.
            cache: cache of self-attention; see `model.blocks.cache`.
            memory: keys and values of the encoder's output, or None to skip cross-attention.
            memory_mask: mask that hides the padding of the memory.
        """
        causal = self.causal and not isinstance(mask, Tensor)
        x_btm = self._residual(
            x_btm,
            lambda x: self.self_attention(x, mask, causal, cache, rotation),
            self.self_attention_norm,
        )
        if memory is not None:
            x_btm = self._residual(
                x_btm,
                lambda x: self.cross_attention(x, memory, memory_mask),
                self.cross_attention_norm,
            )
        return self._residual(x_btm, self.feed_forward, self.feed_forward_norm)

    def _residual(
        self, x_btm: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module
    ) -> Tensor:
        y_btm: Tensor
        if self.pre_norm:
            y_btm = self.add(x_btm, sublayer(norm(x_btm)))
        else:
            y_btm = norm(self.add(x_btm, sublayer(x_btm)))
        return y_btm


# Mask of self-attention in a whole sequence: none, of keys (b, 1, 1, t), or of pairs of a query and
# a key (b, 1, t, t).
MaskForm = Literal["none", "keys", "pairs"]
# Compiled form of `Layer.forward`: takes the layer and its arguments.
CompiledLayer = Callable[..., Tensor]


class LayerStack(nn.Module):
    """Consecutive layers, followed by the last norm.

    Networks with a single stack inherit from this class, so that the names of their parameters
    begin with `layers.0.…`. Stored weights depend on these names.

    Attributes:
        mask_forms: the forms of masks that the network gives the layers, except when decoding.
        compiled_layer: compiled form of the layers for training passes (with gradients, in training
            mode) and validation (in evaluation mode and torch's inference mode); None if layers are
            not compiled. Decoding is never compiled, nor are batches of one token per row, because
            compilers treat sizes of 1 as constants.
        compiled_one_row: whether the compiled form is only for batches of one row; otherwise it is
            only for batches of several rows.
    """

    mask_forms: ClassVar[tuple[MaskForm, ...]] = ("none", "keys", "pairs")
    compiled_layer: CompiledLayer | None = None
    compiled_one_row = False
    layers: nn.ModuleList
    last_norm: nn.Module

    def add_layers(
        self,
        config: LayersConfig,
        layers: int,
        backend: AttentionBackend | None,
        *,
        causal: bool = False,
        reads_memory: bool = False,
    ) -> None:
        """Register the layers and the last norm; see `Layer` for the arguments."""
        made = [
            Layer(config, backend, causal=causal, reads_memory=reads_memory) for _ in range(layers)
        ]
        self.layers = nn.ModuleList(made)
        # The output of pre-norm layers is a sum that is not normalised yet.
        self.last_norm = norm_of(config) if config.pre_norm else nn.Identity()
        self.recomputes_activations = False
        self.attention_backend = backend

    def _compiled_for(
        self, x_btm: Tensor, memories: Sequence[KeyValue] | None
    ) -> CompiledLayer | None:
        is_pass = torch.is_grad_enabled() if self.training else torch.is_inference_mode_enabled()
        rows, *lengths = x_btm.shape[:2]
        lengths += [memories[0].keys_bgsd.shape[2]] if memories else []
        fits = min(lengths) > 1 and (rows == 1) == self.compiled_one_row
        return self.compiled_layer if is_pass and fits else None

    def checkpoint_activations(self, on: bool) -> None:
        """Set whether the backward pass recomputes each layer instead of keeping activations.

        With recomputation, only each layer's inputs are kept (Chen et al. 2016), at the cost of one
        more forward pass per micro-batch. The random state is restored, so dropout and all results
        are bitwise equal.
        """
        self.recomputes_activations = on

    def run_layers(
        self,
        x_btm: Tensor,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        caches: Sequence[KeyValueCache] | None = None,
        memories: Sequence[KeyValue] | None = None,
        memory_mask: Mask | None = None,
    ) -> Tensor:
        """Return the hidden states (b, t, m) after the last norm.

        The arguments are those of `Layer`, with one cache and one memory per layer.
        """
        compiled = self._compiled_for(x_btm, memories) if caches is None else None
        if compiled is None:  # a compiled layer converts masks itself
            mask, memory_mask = (
                mask_of_type(each, x_btm, self.attention_backend) for each in (mask, memory_mask)
            )
        for number, layer in enumerate(self.layers):
            cache = None if caches is None else caches[number]
            memory = None if memories is None else memories[number]
            inputs = x_btm, mask, rotation, cache, memory, memory_mask
            run: Callable[..., Tensor] = partial(compiled, layer) if compiled else layer
            if self.recomputes_activations and torch.is_grad_enabled():
                x_btm = checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=True)
            else:
                x_btm = run(*inputs)
        hidden_btm: Tensor = self.last_norm(x_btm)
        return hidden_btm


class Encoder(LayerStack):
    """The encoder of an encoder-decoder network."""

    mask_forms = ("keys",)

    def __init__(self, config: ModelConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__()
        self.add_layers(config, config.encoder_layers, backend)

    def forward(self, x_bsm: Tensor, mask: Mask, rotation: Rotation | None = None) -> Tensor:
        """Return the memory (b, s, m); `mask` (b, 1, 1, s) hides padding."""
        return self.run_layers(x_bsm, mask, rotation)


class Decoder(LayerStack):
    """The decoder of an encoder-decoder network."""

    mask_forms = ("none",)

    def __init__(self, config: ModelConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__()
        self.add_layers(config, config.decoder_layers, backend, causal=True, reads_memory=True)

    def project_memory(self, memory_bsm: Tensor) -> list[KeyValue]:
        """Return each layer's keys and values of the encoder's output."""
        memories = []
        for layer in self.layers:
            assert isinstance(layer, Layer)
            memories.append(layer.cross_attention.project_memory(memory_bsm))
        return memories

    def forward(
        self,
        x_btm: Tensor,
        memories: Sequence[KeyValue],
        memory_mask: Mask,
        own_mask: Mask | None = None,
        caches: Sequence[KeyValueCache] | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Return the hidden states (b, t, m); `memories` and `caches` have one item per layer.

        Args:
            own_mask: mask of self-attention. Without caches, it separates packed sentences. With
                caches, it has the shape (b, 1, k, p · slots) for k hypotheses and p positions, and
                hides everything except a hypothesis' own past (see `model.blocks.cache`).
            caches: if given, x is one decoding step, otherwise a whole sequence.
        """
        return self.run_layers(x_btm, own_mask, rotation, caches, memories, memory_mask)
