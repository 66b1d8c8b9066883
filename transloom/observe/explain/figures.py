"""Convert tensors to heat maps: rounded, labelled, and cut if a model is too large for a page.

Limits keep the page of a large model to some megabytes. `MAX_PIECES` limits the rows of vectors, of
scores and of a decoder's steps. `MAX_ATTENDED` limits the pieces in a map of weights. `MAX_NUMBERS`
limits the numbers of a vector, of all heads together. `MAX_HEADS` limits the heads of an attention,
and `MAX_LAYERS` the layers of a stack. Each map states which part it leaves out. A map of weights
also states the largest sum of weights that a row lacks.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from transloom.observe.explain.parts import Colours, HeatMap

MAX_PIECES = 32
MAX_ATTENDED = 128
MAX_NUMBERS = 128
MAX_HEADS = 16
MAX_LAYERS = 6

DECIMALS = {Colours.SIGNED: 3, Colours.SHARE: 4}


def vectors(title: str, values_tm: Tensor, rows: Sequence[str]) -> HeatMap:
    """Return a map with one vector per row, from an array of shape (rows, width).

    Each vector is limited to its first `MAX_NUMBERS` numbers.
    """
    return _heat_map(title, values_tm, rows, None, Colours.SIGNED, (MAX_PIECES, MAX_NUMBERS))


def head_vectors(title: str, values_td: Tensor, rows: Sequence[str], heads: int) -> HeatMap:
    """Return a map of one head's part of each vector, from an array of shape (rows, head width).

    Args:
        heads: the number of heads, which share the limit `MAX_NUMBERS`.
    """
    numbers = max(1, MAX_NUMBERS // min(heads, MAX_HEADS))
    return _heat_map(title, values_td, rows, None, Colours.SIGNED, (MAX_PIECES, numbers))


def scores(title: str, scores_ts: Tensor, rows: Sequence[str], columns: Sequence[str]) -> HeatMap:
    """Return a map of attention scores, with one row per query and one column per key."""
    limits = MAX_PIECES, MAX_ATTENDED
    return _heat_map(title, scores_ts, rows, columns, Colours.SIGNED, limits)


def weights(title: str, weights_ts: Tensor, rows: Sequence[str], columns: Sequence[str]) -> HeatMap:
    """Return a map of attention weights, with one row per query and one column per value.

    A complete row adds up to 1. If columns are left out, the map states the maximum weight that
    they have in a row.
    """
    limits = MAX_ATTENDED, MAX_ATTENDED
    shown = _heat_map(title, weights_ts, rows, columns, Colours.SHARE, limits)
    missing = missing_share(weights_ts)
    if not missing:
        return shown
    said = f"{shown.cut}; the others have up to {missing:.3f} of a row"
    return replace(shown, cut=said)


def missing_share(weights_ts: Tensor) -> float:
    """Return the largest weight in columns that are not shown, of all shown rows.

    The result is rounded up to thousandths.
    """
    left = weights_ts[:MAX_ATTENDED, MAX_ATTENDED:].float().clamp(min=0)  # masked scores are −∞
    return math.ceil(float(left.sum(dim=1).max()) * 1000) / 1000 if left.shape[1] else 0.0


def left_out(total: int, limit: int, what: str) -> str:
    """Return a text that only the first `limit` items are shown; empty if all are shown."""
    return f"the first {limit} of {total} {what}" if total > limit else ""


def _heat_map(
    title: str,
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str] | None,
    colours: Colours,
    limits: tuple[int, int],
) -> HeatMap:
    height, width = values.shape
    assert height == len(rows), (title, height, len(rows))
    assert columns is None or width == len(columns), (title, width, columns)
    max_rows, max_columns = limits
    cuts = (
        left_out(height, max_rows, "rows"),
        left_out(width, max_columns, "columns"),
    )
    shown = values[:max_rows, :max_columns].float().cpu().tolist()
    decimals = DECIMALS[colours]
    return HeatMap(
        title=title,
        values=[[_rounded(number, decimals) for number in row] for row in shown],
        rows=rows[:max_rows],
        columns=columns[:max_columns] if columns is not None else None,
        colours=colours,
        shape=f"{height} × {width}",
        cut=", ".join(cut for cut in cuts if cut),
    )


def _rounded(number: float, decimals: int) -> float | None:
    """Return a rounded number; None for −∞, which is the score of a masked position."""
    return None if number == float("-inf") else round(number, decimals) + 0.0  # no -0.0
