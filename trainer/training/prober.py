"""Outputs of the network for probe sentences, saved at some steps of a run.

Probing does not change any bit of the training: dropout is off, no random numbers are drawn, and
the weights are those of a validation (the moving average if the run keeps one). Only rank 0
computes; the other ranks only help to gather the weights that ZeRO has partitioned.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from model.errors import ModelError
from trainer.record.time_lapse import TimeLapseFrame, is_probed, write_frame
from trainer.tasks.task import TrainingTask


class ProberProtocol(Protocol):
    """Interface of a prober for the training loop."""

    def is_due(self, step: int) -> bool:
        """Return whether a step is probed; the same on all ranks."""

    def take(self, network: nn.Module, step: int) -> None:
        """Save the network's outputs for the probe sentences after a step.

        The network is in evaluation mode.
        """


class NoProber:
    """Prober that never probes."""

    def is_due(self, step: int) -> bool:
        return False

    def take(self, network: nn.Module, step: int) -> None:
        raise AssertionError("no step is due")


class Prober:
    """Prober that saves the outputs in a run's folder, on rank 0."""

    def __init__(
        self,
        task: TrainingTask,
        sentences: Sequence[str],
        folder: Path | None,
        notice: Callable[[str], None],
    ) -> None:
        """Store the sentences and their destination.

        Args:
            task: the task, which computes the outputs.
            sentences: the probe sentences.
            folder: the time-lapse folder of the run; None on all ranks except 0.
            notice: receives a message if outputs cannot be saved.
        """
        self._task = task
        self._sentences = sentences
        self._folder = folder
        self._notice = notice

    def is_due(self, step: int) -> bool:
        return bool(self._sentences) and is_probed(step)

    def take(self, network: nn.Module, step: int) -> None:
        """Save the outputs; if that fails, send a notice and let the training continue."""
        if self._folder is None:
            return
        try:
            probes = tuple(self._task.probe(network, sentence) for sentence in self._sentences)
            write_frame(self._folder, TimeLapseFrame(step=step, probes=probes))
        except (ModelError, OSError) as error:
            self._notice(f"the time-lapse frame of step {step} cannot be saved: {error}")
