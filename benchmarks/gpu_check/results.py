"""Store the results of the GPU check: rows, and the file that contains them.

    {"format": 1, "device": "cuda", "deviations": ["torch 2.11.0, pinned 2.13.0"], "rows": [...]}

The file is replaced after each row. A run that ends early therefore keeps its results, and another
run continues with the remaining rows. The module needs only Python.
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
    """The results file cannot be used; the message names the remedy."""


@dataclass(frozen=True)
class Row:
    """Result of one planned row.

    Attributes:
        stage, key: the stage and the key of the planned row.
        detail: comparison of the figure with its bound, or the reason why the row failed or was
            skipped.
        aim: "met" or "missed" if there is an aim for the figure.
        seconds: the time that the row took.
        versions, driver: versions and driver of the machine that ran the row.
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
        """Return the figure with its unit and aim; empty if the row has no figure."""
        if self.figure is None:
            return ""
        number = f"{self.figure:,.0f}" if abs(self.figure) >= 1000 else f"{self.figure:.3g}"
        return f"{number} {self.unit}".strip() + (f" (aim {self.aim})" if self.aim else "")


@dataclass
class Results:
    """All rows with a result, by row name."""

    device: Device
    rows: dict[str, Row] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        self.rows.update((row.name, row) for row in rows)

    def write(self, path: Path) -> None:
        """Replace the results file atomically."""
        values = {
            "format": FORMAT,
            "device": self.device,
            "deviations": self.deviations,
            "rows": [asdict(row) for row in self.rows.values()],
        }
        replace_text(path, json.dumps(values, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replace the contents of a file by a text, atomically."""
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
        ResultsError: the file is missing, or is not a results file of this format.
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
        raise ValueError(f"{value!r} is not one of {', '.join(get_args(literal))}")
    return value
