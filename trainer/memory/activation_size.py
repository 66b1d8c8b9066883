"""Upper bound of the memory of a pass through a built-in network, without running it.

For each token, a layer keeps its inputs, projections, sums and norms for the backward pass: at most
30 values of the model's width and 4 of the feed-forward network's, in all settings. For each pair
of a query and a key, each head keeps at most 6 values: scores, softmax, dropout. For each predicted
token, the loss has at most 4 values for each entry of the vocabulary. The bound is twice as large,
in fp32. It counts all layers and all logits at once, although the loss computes logits in chunks
and a pass without gradients keeps no layer.
"""

from model.config.layers import LayersConfig
from model.config.transformer import ModelConfig
from model.flops import BatchSizes
from trainer.memory.state_size import FP32

PER_WIDTH, PER_INNER_WIDTH, PER_SCORE, PER_LOGIT = 60, 8, 12, 8


def activation_bytes(config: LayersConfig, sizes: BatchSizes, vocabulary: int) -> int:
    """Return an upper bound of the bytes that forward and backward take besides the state.

    Args:
        config: the settings of a built-in network.
        sizes: the sizes of the batch as the network computes it, with padding.
        vocabulary: the number of entries of the largest vocabulary.
    """
    if isinstance(config, ModelConfig):
        layers = config.encoder_layers + config.decoder_layers
    else:
        layers = config.layers
    tokens = sizes.tokens + sizes.target_tokens
    pairs = sizes.pairs + sizes.target_pairs + sizes.cross_pairs
    widths = PER_WIDTH * config.width + PER_INNER_WIDTH * config.inner_width
    per_layer = tokens * widths + PER_SCORE * config.heads * pairs
    logits = PER_LOGIT * (sizes.outputs * vocabulary + sizes.cosines)
    return FP32 * (layers * per_layer + logits)
