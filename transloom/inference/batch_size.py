"""Number of texts per batch, limited by the memory of attention scores."""

from collections.abc import Iterable

from torch import nn

TEXTS_AT_ONCE = 32
BYTES_OF_SCORES = 2**28  # maximum bytes of one layer's attention scores


def max_texts_per_batch(lengths: Iterable[int], network: nn.Module, heads: int) -> int:
    """Return the maximum number of texts in a batch, at least 1.

    Args:
        lengths: number of tokens of each text.
        network: the network that reads the texts, whose weights have one number format.
        heads: number of heads in each attention layer.
    """
    bytes_of_number = next(network.parameters()).element_size()
    bytes_of_text = heads * bytes_of_number * max(lengths, default=1) ** 2
    return max(1, min(TEXTS_AT_ONCE, BYTES_OF_SCORES // bytes_of_text))
