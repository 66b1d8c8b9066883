"""The copy task in torch: padded lines, scored by loss and by the share of right tokens."""

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from copy_task.data import HIDDEN
from copy_task.network import CopyNetwork, guesses
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.text import TEXT
from model.losses.loss import CrossEntropy
from run_store.scores import Score
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.task import Scoring, TrainingTask, ValidationResult


class CopyTask(TrainingTask):
    """What ranks know of the task."""

    @property
    def loss(self) -> CrossEntropy:
        return CrossEntropy()

    def collate(self, micro_batch: MicroBatch, device: torch.device) -> DeviceBatch:
        """The text with hidden tokens, the text, and 1 at real tokens: int64 [lines, longest]."""
        lengths = micro_batch.fields[TEXT].lengths
        real = np.arange(int(lengths.max())) < lengths[:, None]
        arrays = [np.zeros(real.shape, dtype=np.int64) for _ in range(2)]
        state = hashlib.blake2b(micro_batch.pair_ids.astype("<i8").tobytes(), digest_size=32)
        state.update(lengths.astype("<i8").tobytes())
        for array, field in zip(arrays, (HIDDEN, TEXT), strict=True):
            array[real] = micro_batch.fields[field].ids
            state.update(array[real].astype("<i4").tobytes())
        inputs = [torch.from_numpy(array).to(device) for array in (*arrays, real.astype(np.int64))]
        padding = int((~real).sum())
        return DeviceBatch(tuple(inputs), state.digest(), padding, real.size)

    def targets(self, micro_batch: MicroBatch) -> np.ndarray:
        return micro_batch.fields[TEXT].lengths

    def scoring(self, heldout: HeldOut) -> "CopyScoring":
        return CopyScoring(self, heldout)


class CopyScoring(Scoring):
    """In the table each batch has a row: the sum of its losses, and how many tokens are right."""

    columns = 2

    def __init__(self, task: CopyTask, heldout: HeldOut) -> None:
        self._task = task
        self.batches = task.data.heldout_micro_batches(
            heldout, task.tokenizers, task.recipe.data_settings
        )
        self.rows = len(self.batches)
        self._tokens = sum(task.data.units(batch) for batch in self.batches)

    def score(
        self, network: nn.Module, micro_batch: MicroBatch, number: int, device: torch.device
    ) -> Iterator[tuple[int, np.ndarray]]:
        assert isinstance(network, CopyNetwork)
        hidden, text, real = self._task.collate(micro_batch, device).inputs
        nll = float(network(hidden, text, real, CrossEntropy()).nll)
        right = int(((guesses(network, hidden, real) == text) & real.bool()).sum())
        yield number, np.array([nll, right])

    def summarise(self, table: np.ndarray) -> ValidationResult:
        loss = math.fsum(table[:, 0].tolist()) / self._tokens
        accuracy = float(table[:, 1].sum()) / self._tokens
        return ValidationResult(
            {
                "loss": Score(value=loss, more_is_better=False),
                "accuracy": Score(value=accuracy, more_is_better=True),
            }
        )
