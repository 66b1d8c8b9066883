"""Two runs side by side: the same data, the same losses, the same weights?"""

from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch

from trainer.checkpoints.format import Checkpoint, list_checkpoints, step_of
from trainer.checkpoints.reader import CheckpointReader
from trainer.errors import TrainerError
from trainer.runs.folder import RunFolder
from trainer.tracking.metrics import train_lines
from trainer.tracking.records import TrainLine


@dataclass(frozen=True)
class Comparison:
    """How far two runs are the same.

    Attributes:
        steps: the number of steps that both have recorded.
        other_data_from: the first of these steps with other data; None if all are equal.
        other_loss_from: the first of these steps with another loss, be it in the last bit; None
            if all are equal.
        largest_difference: between losses of the same step, relative to the first run's.
        checkpoint_step: the step of the newest checkpoint that both have; None if they have none
            in common.
        other_tensors: the names of its weights and moments that differ in any bit.
        tensors: the number of its weights and moments.
    """

    steps: int
    other_data_from: int | None
    other_loss_from: int | None
    largest_difference: float
    checkpoint_step: int | None
    other_tensors: list[str]
    tensors: int

    @property
    def is_same(self) -> bool:
        """Whether everything that could be compared is the same to the last bit."""
        return (
            self.other_data_from is None and self.other_loss_from is None and not self.other_tensors
        )


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare two runs' records and their newest common checkpoint, whatever their shapes.

    Raises:
        RunMismatchError: one of the folders has no run.
        TrainerError: they have no step in common.
        CheckpointError: a checkpoint is damaged.
    """
    for folder in (first, second):
        RunFolder(folder).card()
    ours, theirs = (_train_lines(folder) for folder in (first, second))
    steps = sorted(ours.keys() & theirs.keys())
    if not steps:
        raise TrainerError(
            f"{first} has recorded {_span(ours)}, {second} {_span(theirs)}: nothing to compare"
        )

    def first_other(field: str) -> int | None:
        return next(
            (step for step in steps if getattr(ours[step], field) != getattr(theirs[step], field)),
            None,
        )

    losses = [(ours[step].loss, theirs[step].loss) for step in steps]
    checkpoints = _checkpoints(first), _checkpoints(second)
    newest = max(checkpoints[0].keys() & checkpoints[1].keys(), default=None)
    different: list[str] = []
    tensors = 0
    if newest is not None:
        different, tensors = _compare_state(checkpoints[0][newest], checkpoints[1][newest])
    return Comparison(
        steps=len(steps),
        other_data_from=first_other("data_digest"),
        other_loss_from=first_other("loss"),
        largest_difference=max(abs(a - b) / abs(a) if a else inf * (a != b) for a, b in losses),
        checkpoint_step=newest,
        other_tensors=different,
        tensors=tensors,
    )


def _compare_state(first: Path, second: Path) -> tuple[list[str], int]:
    """The tensors that differ, as kind:parameter, and how many there are."""
    ours, theirs = (CheckpointReader(Checkpoint(path)) for path in (first, second))
    if ours.checkpoint.header.parameters != theirs.checkpoint.header.parameters:
        raise TrainerError(f"{first} and {second} have other parameters: they are of two models")
    names = sorted(ours.names | theirs.names)
    different = [
        f"{kind}:{parameter}"
        for kind, parameter in names
        if (kind, parameter) not in ours.names & theirs.names
        or not torch.equal(ours.whole(kind, parameter), theirs.whole(kind, parameter))
    ]
    return different, len(names)


def _train_lines(folder: Path) -> dict[int, TrainLine]:
    return {line.step: line for line in train_lines(RunFolder(folder).metrics)}


def _checkpoints(folder: Path) -> dict[int, Path]:
    return {step_of(path): path for path in list_checkpoints(RunFolder(folder).checkpoints)}


def _span(lines: dict[int, TrainLine]) -> str:
    return f"steps {min(lines)} to {max(lines)}" if lines else "no step"
