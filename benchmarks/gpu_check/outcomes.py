"""Define the interface between a stage and the child process that runs it.

The function of a row takes a `Work` and returns a `Measurement`. It raises `WrongResultError` or
any other exception if the code path does not work, and `CannotRunError` if this machine cannot run
it. The module needs only Python.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Work:
    """Device under test, and a folder that all rows of a stage share.

    If a stage continues on another machine after a crash, the folder is empty there.
    """

    device: Device
    folder: Path

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"


@dataclass(frozen=True)
class Measurement:
    """Result of a row that passed.

    Attributes:
        figure: the measured number; None if the row only checks something.
        aim: True if the figure reached its aim; None if it has no aim.
    """

    figure: float | None = None
    unit: str = ""
    detail: str = ""
    aim: bool | None = None


class WrongResultError(Exception):
    """The code path ran and gave a wrong result."""

    def __init__(self, detail: str, figure: float | None = None, unit: str = "") -> None:
        super().__init__(detail)
        self.figure = figure
        self.unit = unit


class CannotRunError(Exception):
    """This machine cannot run the row; the message names what the machine lacks."""


def require_gpu(work: Work) -> None:
    """Skip a row that compiles, if the device is a CPU, whose compiler takes minutes.

    Raises:
        CannotRunError: the device is a CPU.
    """
    if not work.is_gpu:
        raise CannotRunError("on CPUs, tests/trainer/exact/test_compiled_layers.py compiles")


def within(figure: float, bound: float, unit: str, detail: str = "") -> Measurement:
    """Return a figure as a measurement if it is at most the bound.

    Raises:
        WrongResultError: the figure is above the bound, or is not a number.
    """
    if not figure <= bound:
        raise WrongResultError(f"expected at most {bound:g}. {detail}".strip(), figure, unit)
    return Measurement(figure, unit, f"at most {bound:g} allowed")
