"""Cost curves as Markdown tables, with the exponents by which they grow."""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.cost_curves.points import Point


@dataclass(frozen=True)
class Curve:
    """A cost over x; `measured` has a list of repetitions for each x."""

    name: str
    x: list[int]
    measured: list[list[float]]

    @property
    def medians(self) -> list[float]:
        return [statistics.median(values) for values in self.measured]

    @property
    def exponent(self) -> float:
        """The slope of the line that fits best between the logarithms."""
        logs = [list(map(math.log, values)) for values in (self.x, self.medians)]
        return statistics.linear_regression(*logs).slope

    @property
    def last_exponent(self) -> float:
        """The slope between the last two points."""
        medians = self.medians
        return math.log(medians[-1] / medians[-2]) / math.log(self.x[-1] / self.x[-2])

    def to_json(self) -> dict[str, Any]:
        found = asdict(self) | {"medians": self.medians}
        return found | {"exponent": self.exponent, "last_exponent": self.last_exponent}


@dataclass(frozen=True)
class Table:
    title: str
    x_name: str
    unit: str
    curves: list[Curve]

    @classmethod
    def of(
        cls, title: str, x_name: str, unit: str, points: list[Point], found: list[list[float]]
    ) -> "Table":
        """One curve for each setting, in the points' order."""
        curves: dict[str, Curve] = {}
        for point, values in zip(points, found, strict=True):
            name = point.setting.name
            curve = curves.setdefault(name, Curve(name, [], []))
            curve.x.append(point.x)
            curve.measured.append(values)
        return cls(title, x_name, unit, list(curves.values()))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"curves": [curve.to_json() for curve in self.curves]}

    def markdown(self) -> str:
        xs = [f"{x:,}" for x in self.curves[0].x]
        rows = [[self.x_name, *xs, "exponent", "of the last two"]]
        rows.append(["---"] * len(rows[0]))
        rows += [
            [
                curve.name,
                *map(shown, curve.measured),
                f"**{curve.exponent:.2f}**",
                f"{curve.last_exponent:.2f}",
            ]
            for curve in self.curves
        ]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"### {self.title}, {self.unit}\n\n{lines}\n"


def shown(values: list[float]) -> str:
    """The median, and the range if there is one."""
    median, low, high = map(_number, (statistics.median(values), min(values), max(values)))
    return median if len(values) == 1 else f"{median} ({low}–{high})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
