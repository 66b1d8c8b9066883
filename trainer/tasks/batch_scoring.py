"""Scoring of the batches that a task makes of a held-out set."""

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import HeldOut
from model.heads.masked_head import label_loss_sums
from trainer.tasks.task import Scoring, TrainingTask

T = TypeVar("T", bound=TrainingTask)


class BatchScoring(Scoring, Generic[T]):
    """Scoring in units such as masked tokens; by default, each batch has a row of the table."""

    def __init__(self, task: T, heldout: HeldOut) -> None:
        self._task, self._heldout = task, heldout
        self.batches = task.data.heldout_micro_batches(
            heldout, task.tokenizers, task.recipe.data_settings
        )
        self.rows = len(self.batches)
        self._units = sum(task.data.units(batch) for batch in self.batches)


class AccuracyScoring(BatchScoring[T]):
    """Scoring of a network whose last argument is a loss, by loss and accuracy.

    The row of a batch has the summed loss in nats, and the number of correct predictions.
    """

    columns = 2

    def score(
        self, network: nn.Module, micro_batch: MicroBatch, number: int, device: torch.device
    ) -> Iterator[tuple[int, np.ndarray]]:
        sums = network(*self._task.collate(micro_batch, device).inputs, label_loss_sums)
        yield number, np.array([float(sums.nll), float(sums.right)])
