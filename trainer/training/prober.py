"""Probe sentences on the way: what the network makes of them, kept at some steps of a run.

It computes beside the training and changes no bit of it: dropout is off, nothing is drawn, and the
weights are those that a validation has, the moving average if the run keeps one. Rank 0 alone
computes; the other ranks only help to put its weights together, where ZeRO has spread them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from model.errors import ModelError
from trainer.record.time_lapse import TimeLapseFrame, is_probed, write_frame
from trainer.tasks.task import TrainingTask


class ProberProtocol(Protocol):
    """A prober as the loop needs it."""

    def is_due(self, step: int) -> bool:
        """Whether a step has its moment; the same on all ranks."""

    def take(self, network: nn.Module, step: int) -> None:
        """Keep what the network, in evaluation mode, makes of the sentences after a step."""


class NoProber:
    """Probes nothing."""

    def is_due(self, step: int) -> bool:
        return False

    def take(self, network: nn.Module, step: int) -> None:
        raise AssertionError("no step is due")


class Prober:
    """Keeps moments in a run's folder, on rank 0."""

    def __init__(
        self,
        task: TrainingTask,
        sentences: Sequence[str],
        folder: Path | None,
        notice: Callable[[str], None],
    ) -> None:
        """
        Args:
            folder: the run's time-lapse; None on other ranks than 0.
            notice: is told what could not be kept.
        """
        self._task = task
        self._sentences = sentences
        self._folder = folder
        self._notice = notice

    def is_due(self, step: int) -> bool:
        return bool(self._sentences) and is_probed(step)

    def take(self, network: nn.Module, step: int) -> None:
        """Keep a moment, or say why not: the training needs none."""
        if self._folder is None:
            return
        try:
            probes = tuple(self._task.probe(network, sentence) for sentence in self._sentences)
            write_frame(self._folder, TimeLapseFrame(step=step, probes=probes))
        except (ModelError, OSError) as error:
            self._notice(f"the time-lapse has no moment of step {step}: {error}")
