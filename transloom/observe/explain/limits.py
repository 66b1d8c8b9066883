"""Limits of what a page draws, which keep the page of a large model to some megabytes.

`MAX_PIECES` limits the rows of vectors, of scores and of a decoder's steps. `MAX_ATTENDED` limits
the pieces in a map of weights. `MAX_NUMBERS` limits the numbers of a vector, of all heads together.
`MAX_HEADS` limits the heads of an attention, and `MAX_LAYERS` the layers of a stack. The page says
which part it leaves out, and how much of a row of weights that is. `MAX_CANDIDATES` limits the most
probable pieces of a step, and `MAX_STEPS` the pieces by which a text is continued.
"""

MAX_PIECES = 32
MAX_ATTENDED = 128
MAX_NUMBERS = 128
MAX_HEADS = 16
MAX_LAYERS = 6
MAX_CANDIDATES = 8
MAX_STEPS = 12
LAYERS_DRAWN = 2  # a stack of more layers is drawn as one layer in the figure, labelled "N ×"


def left_out(total: int, limit: int, what: str) -> str:
    """Return a text that only the first `limit` items are shown; empty if all are shown."""
    return f"the first {limit} of {total} {what}" if total > limit else ""


def as_dict() -> dict[str, int]:
    """Return the limits under the names of the page's modules."""
    return {
        "pieces": MAX_PIECES,
        "attended": MAX_ATTENDED,
        "numbers": MAX_NUMBERS,
        "heads": MAX_HEADS,
        "layers": MAX_LAYERS,
        "candidates": MAX_CANDIDATES,
    }
