"""Outputs of the network for probe sentences, saved at some steps of a run.

Probing does not change any bit of the training: dropout is off, no random numbers are drawn, and
the weights are those of a validation (the moving average if the run keeps one). Only rank 0
computes; the other ranks only help to gather the weights that ZeRO has partitioned.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from model.errors import ModelError
from run_store.record.time_lapse import TimeLapseFrame, is_probed, write_frame
from trainer.job.rank_job import Supervision
from trainer.registries.callbacks import StepObserver
from trainer.state.restore import TrainingState
from trainer.tasks.task import TrainingTask


class Prober(StepObserver):
    """Observer that saves the outputs in a run's folder, on rank 0.

    Until they are saved, all ranks report the phase `validation`.
    """

    def __init__(
        self,
        task: TrainingTask,
        sentences: Sequence[str],
        folder: Path | None,
        state: TrainingState,
        supervision: Supervision,
    ) -> None:
        """Store the sentences and their destination.

        Args:
            task: the task, which computes the outputs.
            sentences: the probe sentences.
            folder: the time-lapse folder of the run; None on all ranks except 0.
            state: the state of the run, which has the weights.
            supervision: receives the phase, and a notice if outputs cannot be saved.
        """
        self._task = task
        self._sentences = sentences
        self._folder = folder
        self._state = state
        self._supervision = supervision

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Save the outputs after the step, and before the first one; a collective."""
        if step == 1:
            self._probe(0)
        yield
        self._probe(step)

    def _probe(self, step: int) -> None:
        if self.is_due(step):
            self._state.engine.timer.interrupt()
            self._supervision.progress("validation", step)
            with self._state.inference_model() as network:
                self.take(network, step)

    def is_due(self, step: int) -> bool:
        """Return whether a step is probed; the same on all ranks."""
        return bool(self._sentences) and is_probed(step)

    def take(self, network: nn.Module, step: int) -> None:
        """Save the outputs; if that fails, send a notice and let the training continue.

        Args:
            network: the network, in evaluation mode.
            step: the step that was applied last.
        """
        if self._folder is None:
            return
        try:
            probes = tuple(self._task.probe(network, sentence) for sentence in self._sentences)
            write_frame(self._folder, TimeLapseFrame(step=step, probes=probes))
        except (ModelError, OSError) as error:
            self._supervision.notice(
                f"the time-lapse frame of step {step} cannot be saved: {error}"
            )
