"""The interface between a stage and the child process that runs it: context in, outcome back.

A row's function takes a `Work` and returns a `Measurement`. It raises `WrongResultError` or any
other exception if the path does not work, and `CannotRunError` if this machine cannot run it. Needs
nothing but Python.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Work:
    """The device under test, and a folder that all rows of a stage share.

    The folder is empty when a stage goes on after a crash on another machine.
    """

    device: Device
    folder: Path

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"


@dataclass(frozen=True)
class Measurement:
    """The figure of a row that passed.

    Attributes:
        aim: whether a figure reached the aim that is set for it; None if there is no aim.
    """

    figure: float | None = None
    unit: str = ""
    detail: str = ""
    aim: bool | None = None


class WrongResultError(Exception):
    """The path ran and gave a wrong result."""

    def __init__(self, detail: str, figure: float | None = None, unit: str = "") -> None:
        super().__init__(detail)
        self.figure = figure
        self.unit = unit


class CannotRunError(Exception):
    """This machine cannot run the row; the text names what it lacks."""


def within(figure: float, bound: float, unit: str, detail: str = "") -> Measurement:
    """Return the figure as a measurement.

    Raises:
        WrongResultError: it is above the bound, or not a number.
    """
    if not figure <= bound:
        raise WrongResultError(f"expected at most {bound:g}. {detail}".strip(), figure, unit)
    return Measurement(figure, unit, f"at most {bound:g} allowed")
