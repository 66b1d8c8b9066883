"""Represent a curve by points, each for one step or for several consecutive steps.

::

    training lines ──▶ one point each ──▶ neighbouring points merged ──▶ columns of a plot

The facts of the training lines say how a point of several steps represents them: by the value of
its last step (`OF_THE_LAST`) or by the mean over its steps (`MEANS`). A point also has extremes,
such as that of the loss, so that a spike remains visible when thousands of steps share a pixel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.file_model import MAX_COUNT
from run_store.record.facts import FACTS
from run_store.record.metrics_lines import TrainLine

# Columns in which a point has the value of its last step; NaN represents an unknown value.
OF_THE_LAST = tuple(fact.name for fact in FACTS if fact.thin == "last")
# Columns in which a point has the mean over its steps. The row stores the sum instead of the mean.
# The mean is unknown (NaN) if one of the steps lacks the value.
MEANS = tuple(fact.name for fact in FACTS if fact.thin == "mean")
_EXTREMES = sorted((kind, fact.name) for fact in FACTS for kind in fact.extremes)
_LOWEST = [name for kind, name in _EXTREMES if kind == "min"]
_HIGHEST = [name for kind, name in _EXTREMES if kind == "max"]
# Columns of a single step, and those of points.
STEP_COLUMNS = ("step", *OF_THE_LAST, *MEANS)
COLUMNS = (
    *STEP_COLUMNS,
    *(f"{name}_min" for name in _LOWEST),
    *(f"{name}_max" for name in _HIGHEST),
)

# Indices into a point's row. A row has the first step, the number of steps, then `COLUMNS`.
_FIRST, _STEPS, _STEP = 0, 1, 2
_LAST = slice(_STEP, _STEP + 1 + len(OF_THE_LAST))
_SUMS = slice(_LAST.stop, _LAST.stop + len(MEANS))
_LEAST = slice(_SUMS.stop, _SUMS.stop + len(_LOWEST))
_MOST = slice(_LEAST.stop, _LEAST.stop + len(_HIGHEST))
ROW_COLUMNS = ("first_step", "steps", *COLUMNS)
ROW = _MOST.stop
_FROM_STEP = [STEP_COLUMNS.index(name) for name in (*STEP_COLUMNS, *_LOWEST, *_HIGHEST)]
_WHOLE = {fact.name for fact in FACTS if fact.format == "whole"}
# Larger integers are implausible, and float64 has no exact values for them.
_LARGEST_WHOLE = 2.0**53
_values_of = attrgetter(*STEP_COLUMNS)


@dataclass(frozen=True)
class Points:
    """Points in the order of their steps.

    Attributes:
        rows: an array of shape (number of points, `ROW`).
    """

    rows: NDArray[np.float64]

    @staticmethod
    def none() -> "Points":
        return Points(np.empty((0, ROW)))

    @staticmethod
    def of_lines(lines: Sequence[TrainLine]) -> "Points":
        """Return one point for each line."""
        values = np.array([_values_of(line) for line in lines], np.float64)
        return Points.of_steps(values.reshape(len(lines), len(STEP_COLUMNS)))

    @staticmethod
    def of_steps(values: NDArray[np.float64]) -> "Points":
        """Return one point for each step, from the values of `STEP_COLUMNS`."""
        rows = np.ones((len(values), ROW))
        rows[:, _STEP:] = values[:, _FROM_STEP]
        rows[:, _FIRST] = rows[:, _STEP]
        return Points(rows)

    def valid(self) -> "Points":
        """Return the points that cover steps; those of an untrusted file may cover none."""
        first, steps, last = self.rows[:, : _STEP + 1].T
        return self._chosen((first >= 0) & (first <= last) & (last < MAX_COUNT) & (steps >= 1))

    @staticmethod
    def joined(parts: Iterable["Points"]) -> "Points":
        """Concatenate points in order; drop points whose steps are not above all earlier steps."""
        rows = np.concatenate([np.empty((0, ROW)), *(part.rows for part in parts)])
        latest = np.append(-np.inf, np.maximum.accumulate(rows[:, _STEP]))
        return Points(rows)._chosen(rows[:, _STEP] > latest[:-1])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def steps(self) -> NDArray[np.float64]:
        """The last step of each point."""
        return self.rows[:, _STEP]

    @property
    def are_single_steps(self) -> bool:
        return bool((self.rows[:, _STEPS] == 1).all())

    def within(self, first_step: float, last_step: float) -> "Points":
        """Return the points that cover a step of a range, which may be infinite."""
        return self._chosen((self.steps >= first_step) & (self.rows[:, _FIRST] <= last_step))

    def _chosen(self, chosen: NDArray[np.bool_]) -> "Points":
        """Return the points of a mask; if it is true for all, the rows are not copied."""
        return self if chosen.all() else Points(self.rows[chosen])

    def by_width(self, width: int) -> "Points":
        """Merge points, so that each covers `width` consecutive steps, counted from step 1."""
        return self.merged((self.steps - 1) // width)

    def thinned(self, points: int) -> "Points":
        """Return at most `points` points, each merged from an equally wide range of steps."""
        if len(self) <= points:
            return self
        first, last = self.steps[0], self.steps[-1]
        width = (last - first) // points + 1
        return self.merged((self.steps - first) // width)

    def columns(self) -> dict[str, list[Any]]:
        """Return the values of all points, by column name; None represents an unknown value."""
        rows = self.rows[:, _STEP:].copy()
        rows[:, _SUMS.start - _STEP : _SUMS.stop - _STEP] /= self.rows[:, [_STEPS]]
        return {name: _plain(rows[:, at], whole=name in _WHOLE) for at, name in enumerate(COLUMNS)}

    def merged(self, groups: NDArray[Any]) -> "Points":
        """Merge neighbouring points of the same group.

        Args:
            groups: the group number of each point.
        """
        if not len(self):
            return self
        starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
        ends = np.append(starts[1:], len(self)) - 1
        merged = self.rows[ends]
        merged[:, _FIRST] = self.rows[starts, _FIRST]
        with np.errstate(over="ignore"):  # the numbers of an untrusted record may overflow
            for summed in (_STEPS, _SUMS):
                merged[:, summed] = np.add.reduceat(self.rows[:, summed], starts, axis=0)
        merged[:, _LEAST] = np.minimum.reduceat(self.rows[:, _LEAST], starts, axis=0)
        merged[:, _MOST] = np.maximum.reduceat(self.rows[:, _MOST], starts, axis=0)
        return Points(merged)


def _plain(values: NDArray[np.float64], whole: bool) -> list[Any]:
    """Return numbers as Python objects; None replaces implausible and infinite numbers."""
    known = np.abs(values) < _LARGEST_WHOLE if whole else np.isfinite(values)
    if known.all():
        return (values.astype(np.int64) if whole else values).tolist()
    kind = int if whole else float
    pairs = zip(values.tolist(), known.tolist(), strict=True)
    return [kind(value) if is_known else None for value, is_known in pairs]
