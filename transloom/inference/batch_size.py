"""Number of texts per batch, limited by the memory of attention scores."""

TEXTS_AT_ONCE = 32
BYTES_OF_SCORES = 2**28  # maximum bytes of one layer's attention scores


def max_texts_per_batch(longest: int, heads: int, bytes_of_number: int) -> int:
    """Return the maximum number of texts in a batch, at least 1.

    Args:
        longest: number of tokens of the longest text.
        heads: number of heads in each attention layer.
        bytes_of_number: bytes of one number in the network.
    """
    return max(1, min(TEXTS_AT_ONCE, BYTES_OF_SCORES // (heads * bytes_of_number * longest**2)))
