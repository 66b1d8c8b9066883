"""Represent a curve by points, each for one step or for several consecutive steps.

::

    training lines ──▶ one point each ──▶ neighbouring points merged ──▶ columns of a plot

A point of several steps has the value of its last step in the columns `OF_THE_LAST`, and the mean
over its steps in the columns `MEANS`. It also has the extremes of loss and gradient norm, so that a
spike remains visible when thousands of steps share a pixel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.record.metrics_lines import TrainLine

# Columns in which a point has the value of its last step; NaN represents an unknown value.
OF_THE_LAST = (
    "time",
    "target_tokens_seen",
    "wall_seconds",
    "counted_seconds",
    "learning_rate",
    "world_size",
    "goodput",
    "compute_slowest_rank",
    "data_slowest_rank",
)
# Columns in which a point has the mean over its steps. The row stores the sum instead of the mean.
# The mean is unknown (NaN) if one of the steps lacks the value.
MEANS = (
    "loss",
    "nll",
    "grad_norm",
    "target_tokens_per_second",
    "tflops_per_second",
    "mfu",
    "step_seconds",
    "data_stall_seconds",
    "checkpoint_stall_seconds",
    "compute_seconds_min",
    "compute_seconds_median",
    "compute_seconds_max",
    "data_stall_seconds_max",
    "wait_seconds",
)
COLUMNS = ("step", *OF_THE_LAST, *MEANS, "loss_min", "loss_max", "grad_norm_max")
_COUNTS = (  # whole numbers
    *("step", "target_tokens_seen", "world_size"),
    *("compute_slowest_rank", "data_slowest_rank"),
)

# Indices into a point's row. A row has the first step, the number of steps, then `COLUMNS`.
_FIRST, _STEPS, _STEP = 0, 1, 2
_LAST = slice(_STEP, _STEP + 1 + len(OF_THE_LAST))
_SUMS = slice(_LAST.stop, _LAST.stop + len(MEANS))
_LEAST, _MOST = _SUMS.stop, slice(_SUMS.stop + 1, _SUMS.stop + 3)
ROW = _MOST.stop
_values_of = attrgetter("step", *OF_THE_LAST, *MEANS, "loss", "loss", "grad_norm")


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
        rows = np.ones((len(lines), ROW))
        rows[:, _STEP:] = values.reshape(len(lines), ROW - _STEP)
        rows[:, _FIRST] = rows[:, _STEP]
        return Points(rows)

    @staticmethod
    def joined(parts: Iterable["Points"]) -> "Points":
        """Concatenate points in order; drop points whose steps are not above all earlier steps."""
        rows = np.concatenate([np.empty((0, ROW)), *(part.rows for part in parts)])
        latest = np.maximum.accumulate(rows[:, _STEP])
        rises = np.ones(len(rows), bool)
        rises[1:] = rows[1:, _STEP] > latest[:-1]
        return Points(rows[rises])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def steps(self) -> NDArray[np.float64]:
        """The last step of each point."""
        return self.rows[:, _STEP]

    @property
    def are_single_steps(self) -> bool:
        return bool((self.rows[:, _STEPS] == 1).all())

    def within(self, first_step: int | None, last_step: int | None) -> "Points":
        """Return the points that cover a step of a range.

        Args:
            first_step, last_step: the range; None leaves that end of the range open.
        """
        first = -np.inf if first_step is None else first_step
        last = np.inf if last_step is None else last_step
        return Points(self.rows[(self.steps >= first) & (self.rows[:, _FIRST] <= last)])

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
        return {name: _plain(rows[:, at], whole=name in _COUNTS) for at, name in enumerate(COLUMNS)}

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
        merged[:, _LEAST] = np.minimum.reduceat(self.rows[:, _LEAST], starts)
        merged[:, _MOST] = np.maximum.reduceat(self.rows[:, _MOST], starts, axis=0)
        return Points(merged)


def _plain(values: NDArray[np.float64], whole: bool) -> list[Any]:
    """Return numbers as Python objects; None replaces numbers that are not finite."""
    known = np.isfinite(values)
    if known.all():
        return (values.astype(np.int64) if whole else values).tolist()
    kind = int if whole else float
    pairs = zip(values.tolist(), known.tolist(), strict=True)
    return [kind(value) if is_known else None for value, is_known in pairs]
