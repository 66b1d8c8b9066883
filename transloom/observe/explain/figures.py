"""From tensors to heat maps: rounded, labelled, and cut where a model is too large for a page.

Limits keep the page of a large model to some megabytes: `MAX_PIECES` rows of vectors, of scores
and of a decoder's steps, `MAX_ATTENDED` pieces of a map of weights, `MAX_NUMBERS` of a vector (all
heads together), `MAX_HEADS` of an attention, `MAX_LAYERS` of a stack. Each map says what it leaves
out, and of weights how much of a row that may be.
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
    """A vector for each row, (rows, width): the first `MAX_NUMBERS` of each."""
    return _heat_map(title, values_tm, rows, None, Colours.SIGNED, (MAX_PIECES, MAX_NUMBERS))


def head_vectors(title: str, values_td: Tensor, rows: Sequence[str], heads: int) -> HeatMap:
    """The part of one of `heads` heads in each row's vector, (rows, width of a head)."""
    numbers = max(1, MAX_NUMBERS // min(heads, MAX_HEADS))
    return _heat_map(title, values_td, rows, None, Colours.SIGNED, (MAX_PIECES, numbers))


def scores(title: str, scores_ts: Tensor, rows: Sequence[str], columns: Sequence[str]) -> HeatMap:
    """How well each query (row) fits each key (column)."""
    limits = MAX_PIECES, MAX_ATTENDED
    return _heat_map(title, scores_ts, rows, columns, Colours.SIGNED, limits)


def weights(title: str, weights_ts: Tensor, rows: Sequence[str], columns: Sequence[str]) -> HeatMap:
    """How much each query (row) takes of each value (column).

    A row of all columns adds up to 1: of what is left out, the map says how much that is at most.
    """
    limits = MAX_ATTENDED, MAX_ATTENDED
    shown = _heat_map(title, weights_ts, rows, columns, Colours.SHARE, limits)
    missing = missing_share(weights_ts)
    if not missing:
        return shown
    said = f"{shown.cut}, which hold up to {missing:.3f} of a row"
    return replace(shown, cut=said)


def missing_share(weights_ts: Tensor) -> float:
    """The most that any shown row has in columns that are not shown, rounded up to thousandths."""
    left = weights_ts[:MAX_ATTENDED, MAX_ATTENDED:].float().clamp(min=0)  # −∞ where it is masked
    return math.ceil(float(left.sum(dim=1).max()) * 1000) / 1000 if left.shape[1] else 0.0


def left_out(total: int, limit: int, what: str) -> str:
    """A text which says that only the first `limit` are shown; empty if all are."""
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
    """A rounded number; None for −∞, the score of a masked place."""
    return None if number == float("-inf") else round(number, decimals) + 0.0  # no -0.0
