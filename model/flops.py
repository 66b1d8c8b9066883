"""Floating-point operations of a training pass, computed from a network's settings and batch sizes.

    settings ──encoder_decoder_flops, …──▶ NetworkFlops: operations per token, per pair of tokens, …
    sizes of a micro-batch ──NetworkFlops.of──▶ Flops: two integers, computed without a tensor

Only matrix products count, and a multiply-add counts as two operations. The backward pass has a
product for the gradient of each trained weight, and a product for each input that needs a gradient.
If nothing is frozen, it therefore has twice the operations of the forward pass. Embedding lookups
do not count; the output matrix counts, even if it is tied to the embedding. There are two numbers
(Chowdhery et al. 2022, App. B; Korthikanti et al. 2022):

    model     operations that the real tokens need, without padding and recomputation. Attention
              counts each query with each key of its sequence, even if it is causal.
    hardware  operations for the padded batch, including recomputed activations.

See docs/decisions/0086 for the reasons. Parameters have the same names as in the modules, so that
frozen weights can be recognised.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig
from model.config.layers import LayersConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import ModelConfig
from model.losses.loss import BIAS_COLUMNS


class BatchSizes(NamedTuple):
    """Sizes of a batch that determine its operations.

    Attributes:
        tokens: number of tokens of the encoder, or of the only stack of other networks.
        pairs: pairs of a query and a key in the self-attention of that stack, the sum of squared
            lengths.
        target_tokens, target_pairs: as `tokens` and `pairs`, for a decoder with cross-attention.
        cross_pairs: pairs of a query of that decoder and a key of its source.
        outputs: number of predicted tokens or labels.
        cosines: comparisons of a sentence encoder, in one direction.
    """

    tokens: int = 0
    pairs: int = 0
    target_tokens: int = 0
    target_pairs: int = 0
    cross_pairs: int = 0
    outputs: int = 0
    cosines: int = 0


class Flops(NamedTuple):
    """Operations of forward and backward passes; see the module's docstring."""

    model: int
    hardware: int


@dataclass(frozen=True)
class Training:
    """Settings of training that change the operations of a pass.

    Attributes:
        trained: names of the parameters that are not frozen, or None if all are trained.
        checkpoints_activations: True if the backward pass recomputes each layer.
    """

    trained: Collection[str] | None = None
    checkpoints_activations: bool = False


WHOLE = Training()


@dataclass(frozen=True)
class NetworkFlops:
    """Operations of a network per unit of each batch size, such as per token."""

    model: BatchSizes
    hardware: BatchSizes

    def of(self, real: BatchSizes, computed: BatchSizes) -> Flops:
        """Return the operations of a batch.

        Args:
            real: the batch's sizes without padding.
            computed: the batch's sizes as the network computes it, with padding if there is any.
        """
        return Flops(_product(self.model, real), _product(self.hardware, computed))


def encoder_decoder_flops(
    config: ModelConfig, target_vocabulary: int, training: Training = WHOLE
) -> NetworkFlops:
    """Return the operations of `model.networks.transformer.Transformer`."""
    count = _Count(training)
    target = "target_embedding"
    source = target if config.share_embeddings == "all" else "source_embedding"
    source_stack = _Stack(config, config.encoder_layers, "encoder.", "tokens", "pairs")
    memory = count.stack(source_stack, count.trains(source))
    target_stack = _Stack(
        config, config.decoder_layers, "decoder.", "target_tokens", "target_pairs"
    )
    hidden = count.decoder_stack(target_stack, memory, count.trains(target))
    output = "output_embedding" if config.share_embeddings == "none" else target
    count.output(output, config.width, target_vocabulary, hidden, with_bias=config.output_bias)
    return count.total


def decoder_only_flops(
    config: DecoderOnlyConfig, vocabulary: int, training: Training = WHOLE
) -> NetworkFlops:
    """Return the operations of `model.networks.decoder_only.DecoderOnly`."""
    count = _Count(training)
    embedded = count.trains("embedding", "positions")
    hidden = count.stack(_Stack(config, config.layers, "", "tokens", "pairs"), embedded)
    output = "embedding" if config.tie_embeddings else "output_embedding"
    count.output(output, config.width, vocabulary, hidden, with_bias=False)
    return count.total


def masked_flops(
    config: EncoderOnlyConfig, vocabulary: int, training: Training = WHOLE
) -> NetworkFlops:
    """Return the operations of `model.heads.masked_head.MaskedLanguageModel`."""
    count = _Count(training)
    hidden = count.encoder_only(config)
    ready = count.linear("head.dense", "outputs", (config.width, config.width), hidden)
    ready = ready or count.trains("head.norm")
    count.output("encoder.embedding", config.width, vocabulary, ready, with_bias=True)
    return count.total


def label_flops(config: EncoderOnlyConfig, labels: int, training: Training = WHOLE) -> NetworkFlops:
    """Return the operations of `model.heads.label_head.LabelModel`."""
    count = _Count(training)
    hidden = count.encoder_only(config)
    if isinstance(config, LabelTextsConfig):
        hidden = count.linear("pooler", "outputs", (config.width, config.width), hidden)
    count.output("classifier", config.width, labels, hidden, with_bias=True)
    return count.total


def sentence_flops(config: SentenceEncoderConfig, training: Training = WHOLE) -> NetworkFlops:
    """Return the operations of `model.heads.sentence_encoder.SentenceEncoder`."""
    count = _Count(training)
    hidden = count.encoder_only(config)
    # Sources are compared with targets, and targets with sources. Both factors of each product are
    # computed by the network.
    each = 2 * config.width
    count.model["cosines"] += 2 * each * (1 + 2 * hidden)
    count.hardware["cosines"] += 2 * each * 3
    return count.total


@dataclass(frozen=True)
class _Stack:
    """Consecutive layers of one kind.

    Attributes:
        prefix: prefix of the names of the layers' parameters.
        tokens, pairs: names of the fields of `BatchSizes` that determine the layers' operations.
    """

    config: LayersConfig
    layers: int
    prefix: str
    tokens: str
    pairs: str


class _Count:
    """Accumulated operations of a network, added layer by layer.

    Boolean arguments say whether a tensor needs a gradient, like autograd's `requires_grad`. The
    argument `per` names the field of `BatchSizes` to which operations are proportional.
    """

    def __init__(self, training: Training) -> None:
        self.model: Counter[str] = Counter()
        self.hardware: Counter[str] = Counter()
        self._training = training
        self._again = False  # True while the backward pass recomputes the products being counted

    @property
    def total(self) -> NetworkFlops:
        return NetworkFlops(BatchSizes(**self.model), BatchSizes(**self.hardware))

    def trains(self, *modules: str) -> bool:
        """Return whether a parameter of one of these modules is trained."""
        trained = self._training.trained
        prefixes = tuple(f"{module}." for module in modules)
        return trained is None or any(name.startswith(prefixes) for name in trained)

    def linear(self, layer: str, per: str, shape: tuple[int, int], x: bool) -> bool:
        """Count a linear layer from inputs to outputs; return whether its output has a gradient."""
        self._add(per, 2 * shape[0] * shape[1], self._trains_weight(layer) + x)
        return x or self.trains(layer)

    def output(
        self, layer: str, width: int, classes: int, hidden: bool, *, with_bias: bool
    ) -> None:
        """Count the product with the output matrix; the loss always computes all gradients."""
        needed = 1 + hidden + self._trains_weight(layer)
        columns = width + BIAS_COLUMNS if with_bias else width
        self.model["outputs"] += 2 * width * classes * needed
        self.hardware["outputs"] += 2 * columns * classes * 3

    def encoder_only(self, config: EncoderOnlyConfig) -> bool:
        """Count the encoder; return whether its hidden states have a gradient."""
        tables = ("embedding", "positions", "segments", "embedding_norm")
        embedded = self.trains(*(f"encoder.{table}" for table in tables))
        return self.stack(_Stack(config, config.layers, "encoder.", "tokens", "pairs"), embedded)

    def stack(self, stack: _Stack, x: bool) -> bool:
        """Count layers without cross-attention; return whether their output has a gradient."""
        for number in range(stack.layers):
            layer = f"{stack.prefix}layers.{number}"
            self._again = self._training.checkpoints_activations and (x or self.trains(layer))
            x = self._residual(stack, f"{layer}.self_attention", x, self._self_attention)
            x = self._residual(stack, f"{layer}.feed_forward", x, self._feed_forward)
            self._again = False
        return x or self.trains(f"{stack.prefix}last_norm")

    def decoder_stack(self, stack: _Stack, memory: bool, x: bool) -> bool:
        """Count layers that also read a memory; return whether their output has a gradient.

        Args:
            memory: True if the memory has a gradient.
        """
        config = stack.config
        key_value_width = 2 * config.groups * config.head_width
        for number in range(stack.layers):
            layer = f"{stack.prefix}layers.{number}"
            projection = f"{layer}.cross_attention.key_value"
            # Keys and values are projected outside the layer, so they are not recomputed.
            keys = self.linear(projection, "tokens", (config.width, key_value_width), memory)
            again = x or keys or self.trains(layer)
            self._again = self._training.checkpoints_activations and again
            cross_attention = partial(self._cross_attention, keys=keys)
            x = self._residual(stack, f"{layer}.self_attention", x, self._self_attention)
            x = self._residual(stack, f"{layer}.cross_attention", x, cross_attention)
            x = self._residual(stack, f"{layer}.feed_forward", x, self._feed_forward)
            self._again = False
        return x or self.trains(f"{stack.prefix}last_norm")

    def _residual(
        self, stack: _Stack, module: str, x: bool, sublayer: Callable[[_Stack, str, bool], bool]
    ) -> bool:
        """Count a sub-layer; return whether its normalised residual sum has a gradient."""
        norm = self.trains(f"{module}_norm")
        y = sublayer(stack, module, x or (stack.config.pre_norm and norm))
        return x or y or norm

    def _self_attention(self, stack: _Stack, module: str, x: bool) -> bool:
        config = stack.config
        columns = config.width + 2 * config.groups * config.head_width
        projection = f"{module}.query_key_value"
        projected = self.linear(projection, stack.tokens, (config.width, columns), x)
        mixed = self._attention(stack.pairs, config.width, projected, projected)
        return self.linear(f"{module}.output", stack.tokens, (config.width, config.width), mixed)

    def _cross_attention(self, stack: _Stack, module: str, x: bool, *, keys: bool) -> bool:
        width = stack.config.width
        queries = self.linear(f"{module}.query", stack.tokens, (width, width), x)
        mixed = self._attention("cross_pairs", width, queries, keys)
        return self.linear(f"{module}.output", stack.tokens, (width, width), mixed)

    def _attention(self, per: str, width: int, queries: bool, keys: bool) -> bool:
        """Count QKᵀ and the weighted sums of the values in all heads.

        `queries` is true if the queries need a gradient, `keys` if the keys and values need
        gradients. Return whether the output of attention needs a gradient.
        """
        weights = queries or keys
        self._add(per, 2 * width, queries + keys)
        self._add(per, 2 * width, weights + keys)
        return weights

    def _feed_forward(self, stack: _Stack, module: str, x: bool) -> bool:
        width, inner_width = stack.config.width, stack.config.inner_width
        if stack.config.activation == "swiglu":
            layer, columns = f"{module}.gate_and_inner", 2 * inner_width
        else:
            layer, columns = f"{module}.inner", inner_width
        inner = self.linear(layer, stack.tokens, (width, columns), x)
        return self.linear(f"{module}.outer", stack.tokens, (inner_width, width), inner)

    def _trains_weight(self, layer: str) -> bool:
        trained = self._training.trained
        return trained is None or f"{layer}.weight" in trained

    def _add(self, per: str, forward: int, gradients: int) -> None:
        """Count a product of the forward pass, and as many operations again for each gradient."""
        self.model[per] += forward * (1 + gradients)
        self.hardware[per] += forward * (1 + gradients + self._again)


def _product(each: BatchSizes, sizes: BatchSizes) -> int:
    return sum(operations * size for operations, size in zip(each, sizes, strict=True))
