"""The results of the GPU check: rows, and the file that holds them.

    {"format": 1, "device": "cuda", "deviations": ["torch 2.11.0, pinned 2.13.0"], "rows": [...]}

The file is replaced after each row, so a run that ends at any time leaves what it found, and
another run goes on from there. Needs nothing but Python.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.gpu_check.outcomes import Device

FORMAT = 1
Result = Literal["passed", "failed", "skipped", "not run"]


class ResultsError(Exception):
    """A results file cannot be used; the message names the remedy."""


@dataclass(frozen=True)
class Row:
    """The result of one planned row.

    Attributes:
        stage, key: the planned row.
        detail: how the figure compares with its bound, or why the row failed or was skipped.
        aim: "met" or "missed" if an aim is set for the figure.
        seconds: the time that the row took.
        versions, driver: of the machine that ran the row.
        date: ISO 8601, UTC.
    """

    stage: str
    key: str
    result: Result
    figure: float | None = None
    unit: str = ""
    detail: str = ""
    aim: Literal["met", "missed"] | None = None
    seconds: float = 0.0
    versions: str = ""
    driver: str = ""
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d"))

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.key}"

    def shown_figure(self) -> str:
        """Return the figure with its unit and aim; empty if the row has none."""
        if self.figure is None:
            return ""
        number = f"{self.figure:,.0f}" if abs(self.figure) >= 1000 else f"{self.figure:.3g}"
        return f"{number} {self.unit}".strip() + (f" (aim {self.aim})" if self.aim else "")


@dataclass
class Results:
    """All rows so far, by name."""

    device: Device
    rows: dict[str, Row] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        self.rows.update((row.name, row) for row in rows)

    def write(self, path: Path) -> None:
        """Replace the file atomically."""
        values = {
            "format": FORMAT,
            "device": self.device,
            "deviations": self.deviations,
            "rows": [asdict(row) for row in self.rows.values()],
        }
        replace_text(path, json.dumps(values, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replace a file by another with this text, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        ResultsError: it is missing, or not a results file of this format.
    """
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise ResultsError(
            f"{path} does not exist. Run `scripts/gpu_check run --results {path}` first."
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is not a results file: {error}. Name another file.") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise ResultsError(
            f"{path} has the format {found!r}, expected {FORMAT}. Name a file that "
            "`scripts/gpu_check run` of this version wrote."
        )
    try:
        results = Results(_checked(values["device"], Device), deviations=values["deviations"])
        results.add(_row(each) for each in values["rows"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path} is damaged: {error!r}. Run the check again.") from None
    return results


def _row(values: dict[str, Any]) -> Row:
    row = Row(**{name: values[name] for name in (each.name for each in fields(Row))})
    _checked(row.result, Result)
    return row


def _checked(value: Any, literal: Any) -> Any:
    if value not in get_args(literal):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(literal))}")
    return value
