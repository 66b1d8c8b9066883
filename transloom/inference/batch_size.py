"""How many texts a network reads at once: few long ones, so that their attention has room."""

TEXTS_AT_ONCE = 32
BYTES_OF_SCORES = 2**28  # of a layer's attention


def max_texts_per_batch(longest: int, heads: int, bytes_of_number: int) -> int:
    """How many texts are read together, 1 at least.

    Args:
        longest: tokens of the longest text.
        heads: of each layer's attention.
        bytes_of_number: of a number in the network.
    """
    return max(1, min(TEXTS_AT_ONCE, BYTES_OF_SCORES // (heads * bytes_of_number * longest**2)))
