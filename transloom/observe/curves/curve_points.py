"""Points of a curve: each stands for one step, or for several neighbouring ones.

::

    lines of steps ──▶ a point each ──▶ neighbours merged ──▶ columns for a picture

A point that stands for several steps shows most values as the last of these steps has them, losses
and times as their mean, and the extremes of loss and gradient norm beside, so that a spike
survives that thousands of steps share a pixel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.record.metrics_lines import TrainLine

# As the last step of a point has them; unknown ones are NaN.
OF_THE_LAST = (
    "time",
    "target_tokens_seen",
    "wall_seconds",
    "counted_seconds",
    "learning_rate",
    "world_size",
    "goodput",
)
# Means over the steps of a point; kept as sums. One that a step lacks is unknown for its point.
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
)
COLUMNS = ("step", *OF_THE_LAST, *MEANS, "loss_min", "loss_max", "grad_norm_max")
_COUNTS = ("step", "target_tokens_seen", "world_size")  # whole numbers

# Rows of points: first step, number of steps, and the columns above.
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
        rows: an array of shape (points, `ROW`).
    """

    rows: NDArray[np.float64]

    @staticmethod
    def none() -> "Points":
        return Points(np.empty((0, ROW)))

    @staticmethod
    def of_lines(lines: Sequence[TrainLine]) -> "Points":
        """A point for each step."""
        values = np.array([_values_of(line) for line in lines], np.float64)
        rows = np.ones((len(lines), ROW))
        rows[:, _STEP:] = values.reshape(len(lines), ROW - _STEP)
        rows[:, _FIRST] = rows[:, _STEP]
        return Points(rows)

    @staticmethod
    def joined(parts: Iterable["Points"]) -> "Points":
        """Points one after another; those whose step is not after all before are left out."""
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
        """The points that have a step of a range."""
        first = -np.inf if first_step is None else first_step
        last = np.inf if last_step is None else last_step
        return Points(self.rows[(self.steps >= first) & (self.rows[:, _FIRST] <= last)])

    def by_width(self, width: int) -> "Points":
        """One point for the steps 1 … width, one for the next ones, and so on."""
        return self.merged((self.steps - 1) // width)

    def thinned(self, points: int) -> "Points":
        """At most so many points, each for a span of steps of the same width."""
        if len(self) <= points:
            return self
        first, last = self.steps[0], self.steps[-1]
        width = (last - first) // points + 1
        return self.merged((self.steps - first) // width)

    def columns(self) -> dict[str, list[Any]]:
        """The columns of a picture, by name; None stands for what is not known."""
        rows = self.rows[:, _STEP:].copy()
        rows[:, _SUMS.start - _STEP : _SUMS.stop - _STEP] /= self.rows[:, [_STEPS]]
        return {name: _plain(rows[:, at], whole=name in _COUNTS) for at, name in enumerate(COLUMNS)}

    def merged(self, groups: NDArray[Any]) -> "Points":
        """Neighbours of the same group as one point each; `groups` has a number for each point."""
        if not len(self):
            return self
        starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
        ends = np.append(starts[1:], len(self)) - 1
        merged = self.rows[ends]
        merged[:, _FIRST] = self.rows[starts, _FIRST]
        with np.errstate(over="ignore"):  # numbers that nobody trained
            for summed in (_STEPS, _SUMS):
                merged[:, summed] = np.add.reduceat(self.rows[:, summed], starts, axis=0)
        merged[:, _LEAST] = np.minimum.reduceat(self.rows[:, _LEAST], starts)
        merged[:, _MOST] = np.maximum.reduceat(self.rows[:, _MOST], starts, axis=0)
        return Points(merged)


def _plain(values: NDArray[np.float64], whole: bool) -> list[Any]:
    """Numbers as Python has them; None for those that are not known."""
    known = np.isfinite(values)
    if known.all():
        return (values.astype(np.int64) if whole else values).tolist()
    kind = int if whole else float
    pairs = zip(values.tolist(), known.tolist(), strict=True)
    return [kind(value) if is_known else None for value, is_known in pairs]
