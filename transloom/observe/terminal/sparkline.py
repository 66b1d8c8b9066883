"""Draw the values of a curve in a line of text."""

import math
from collections.abc import Sequence

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw values between the lowest and the highest one, in at most `width` characters.

    Values that are unknown or not finite are left out. If there are too many values, a character
    stands for the mean of several.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or width < 1:
        return ""
    columns = known
    if len(known) > width:
        with np.errstate(over="ignore"):  # the numbers of an untrusted record may overflow
            columns = [float(part.mean()) for part in np.array_split(known, width)]
    low, high = min(columns), max(columns)
    span, rounding = high - low, 1e-9 * max(abs(low), abs(high))
    if not rounding < span < math.inf:
        return BLOCKS[0] * len(columns)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / span * top)] for value in columns)
