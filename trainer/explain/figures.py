"""From tensors to heat maps: rounded, labelled, and cut where a model is too large for a page.

Limits keep the page of a large model to some megabytes: `MAX_PIECES` of a sentence,
`MAX_NUMBERS` of a vector (all heads together), `MAX_HEADS` of an attention, `MAX_LAYERS` of a
stack. Each map says what it leaves out.
"""

from collections.abc import Sequence

from torch import Tensor

from trainer.explain.parts import Colours, HeatMap

MAX_PIECES = 32
MAX_NUMBERS = 128
MAX_HEADS = 16
MAX_LAYERS = 6

DECIMALS = {Colours.SIGNED: 3, Colours.SHARE: 4}


def vectors(title: str, values_tm: Tensor, rows: Sequence[str]) -> HeatMap:
    """A vector for each row, (rows, width): the first `MAX_NUMBERS` of each."""
    return _heat_map(title, values_tm, rows, None, Colours.SIGNED, MAX_NUMBERS)


def head_vectors(title: str, values_td: Tensor, rows: Sequence[str], heads: int) -> HeatMap:
    """The part of one of `heads` heads in each row's vector, (rows, width of a head)."""
    numbers = max(1, MAX_NUMBERS // min(heads, MAX_HEADS))
    return _heat_map(title, values_td, rows, None, Colours.SIGNED, numbers)


def scores(title: str, scores_ts: Tensor, rows: Sequence[str], columns: Sequence[str]) -> HeatMap:
    """How well each query (row) fits each key (column)."""
    return _heat_map(title, scores_ts, rows, columns, Colours.SIGNED, MAX_PIECES)


def weights(title: str, weights_ts: Tensor, rows: Sequence[str], columns: Sequence[str]) -> HeatMap:
    """How much each query (row) takes of each value (column)."""
    return _heat_map(title, weights_ts, rows, columns, Colours.SHARE, MAX_PIECES)


def left_out(total: int, limit: int, what: str) -> str:
    """A text which says that only the first `limit` are shown; empty if all are."""
    return f"the first {limit} of {total} {what}" if total > limit else ""


def _heat_map(
    title: str,
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str] | None,
    colours: Colours,
    max_columns: int,
) -> HeatMap:
    height, width = values.shape
    assert height == len(rows), (title, height, len(rows))
    assert columns is None or width == len(columns), (title, width, columns)
    cuts = (
        left_out(height, MAX_PIECES, "rows"),
        left_out(width, max_columns, "columns"),
    )
    shown = values[:MAX_PIECES, :max_columns].float().cpu().tolist()
    decimals = DECIMALS[colours]
    return HeatMap(
        title=title,
        values=[[_rounded(number, decimals) for number in row] for row in shown],
        rows=rows[:MAX_PIECES],
        columns=columns[:max_columns] if columns is not None else None,
        colours=colours,
        shape=f"{height} × {width}",
        cut=", ".join(cut for cut in cuts if cut),
    )


def _rounded(number: float, decimals: int) -> float | None:
    """A rounded number; None for −∞, the score of a masked place."""
    return None if number == float("-inf") else round(number, decimals) + 0.0  # no -0.0
