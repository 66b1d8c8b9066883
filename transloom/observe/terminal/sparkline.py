"""Draw curves in a line of text, from series of a bounded number of points."""

import math
from typing import NamedTuple

BLOCKS = "▁▂▃▄▅▆▇█"


class Point(NamedTuple):
    """Value of one step, or merged value of several consecutive steps.

    Attributes:
        step: the last of the steps.
        value: the mean of the steps' values, or the highest of them.
        values: number of values that were merged.
    """

    step: int
    value: float
    values: int = 1


class Series:
    """Values of one quantity over all steps of a run, as a bounded number of points.

    When there are too many points, the number of steps per point doubles and neighbouring points
    are merged. The memory of a series therefore does not grow with the run.
    """

    def __init__(self, most: int = 1024, *, keeps_spikes: bool = False) -> None:
        """Create an empty series.

        Args:
            most: half of the maximum number of points.
            keeps_spikes: True if a point has the highest value of its steps instead of their mean.
        """
        self.points: list[Point] = []
        self._most = most
        self.keeps_spikes = keeps_spikes
        self._steps_of_a_point = 1

    def add(self, step: int, value: float | None) -> None:
        """Add the value of a step; ignore values that are not finite, and steps that are old."""
        if value is None or not math.isfinite(value):
            return
        if self.points and step <= self.points[-1].step:
            return
        self._put(Point(step, value))
        while len(self.points) >= 2 * self._most:
            self._steps_of_a_point *= 2
            points, self.points = self.points, []
            for point in points:
                self._put(point)

    def columns(self, width: int) -> list[float]:
        """Divide the steps into at most `width` equal parts; return one value for each part.

        Return an empty list if there are no points.
        """
        if not self.points or width < 1:
            return []
        first, last = self.points[0].step, self.points[-1].step
        width = min(width, len(self.points))
        parts: list[Point | None] = [None] * width
        for point in self.points:
            part = (point.step - first) * width // (last - first + 1)
            before = parts[part]
            parts[part] = self._joined(before, point) if before else point
        columns: list[float] = []
        for found in parts:  # a part without points gets the value of the previous part
            columns.append(found.value if found else columns[-1])
        return columns

    def _put(self, point: Point) -> None:
        width = self._steps_of_a_point
        if self.points and self.points[-1].step // width == point.step // width:
            self.points[-1] = self._joined(self.points[-1], point)
        else:
            self.points.append(point)

    def _joined(self, before: Point, after: Point) -> Point:
        values = before.values + after.values
        if self.keeps_spikes:
            return Point(after.step, max(before.value, after.value), values)
        change = (after.value - before.value) * (after.values / values)
        return Point(after.step, before.value + change, values)


def sparkline(series: Series, width: int) -> str:
    """Draw the series between its lowest and its highest value, in at most `width` characters."""
    columns = series.columns(width)
    if not columns:
        return ""
    low, high = min(columns), max(columns)
    span = high - low
    if not 0 < span < math.inf:
        return BLOCKS[0] * len(columns)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / span * top)] for value in columns)
