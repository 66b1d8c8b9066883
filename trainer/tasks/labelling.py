"""Torch side of text and token classification, with batches like those of `masked_lm`."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from data_pipeline.arrays import ranges
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.data import PackedBatchingConfig
from data_pipeline.config.label import LabelsDataConfig, TaggedDataConfig
from data_pipeline.config.text import TEXT
from data_pipeline.tasks.labelled import LabelledData
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.tasks import TASKS
from model.config.encoder_only import EncoderOnlyConfig
from model.heads.label_head import LabelModel, label_predictions
from run_store.errors import RunMismatchError
from run_store.scores import scores_of
from trainer.recipe import TrainingRecipe
from trainer.tasks.batch_scoring import BatchScoring
from trainer.tasks.label_scores import accuracy, macro_f1, span_f1
from trainer.tasks.masked_lm import MaskedLanguageModelling
from trainer.tasks.task import ShownExample, ValidationResult

SAMPLES = 3
Labels = list[str]  # the labels of one text


def build_label_model(recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]) -> LabelModel:
    """Build the encoder-only Transformer with a head that predicts the recipe's labels.

    Raises:
        RunMismatchError: the task has no labels.
    """
    if not isinstance(recipe.data, LabelsDataConfig):
        raise RunMismatchError(
            f"model.network is {recipe.model.network}, which predicts labels, but the task "
            f"{recipe.task} has no labels: remove model.network"
        )
    assert isinstance(recipe.model, EncoderOnlyConfig)
    assert isinstance(recipe.batching, PackedBatchingConfig)
    return LabelModel(
        recipe.model,
        tokenizers[TEXT].vocabulary_size,
        recipe.batching.context_length,
        len(recipe.data.labels),
        recipe.engine.attention,
    )


class Labelling(MaskedLanguageModelling):
    """Task with a label for each text or word, for a network with the `forward` of LabelModel.

    The network receives a label in the form of a masked token: a position in the batch, and the
    expected label at this position as the target.
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the order of their numbers."""
        data = self.recipe.data
        assert isinstance(data, LabelsDataConfig)
        return data.labels

    def example_texts(self, micro_batch: MicroBatch) -> dict[str, list[str]]:
        """Return each text and its expected labels by name, for step inspection."""
        names = [
            " ".join(self.labels[number] for number in numbers if number != IGNORE_INDEX)
            for numbers in micro_batch.fields[LABELS_FIELD].rows()
        ]
        ids = micro_batch.fields[TEXT].rows()
        return {self.role: self.tokenizers[TEXT].decode(ids), "labels": names}

    def scoring(self, heldout: HeldOut) -> "LabelScoring":
        return LabelScoring(self, heldout)


class LabelScoring(BatchScoring[Labelling]):
    """Scoring by label scores, of a held-out set with at least one label.

    The table has a row for each label, in the order of the texts. A row has the negative
    log-likelihood of the expected label, in nats, and the number of the most probable label.
    """

    columns = 2

    def __init__(self, task: Labelling, heldout: HeldOut) -> None:
        super().__init__(task, heldout)
        assert isinstance(task.data, LabelledData)
        fields = task.data.heldout_fields(heldout, task.tokenizers, task.recipe.data_settings)
        predicted = fields[LABELS_FIELD]
        is_labelled = predicted.ids != IGNORE_INDEX
        # The number of labels before each token.
        self._before = np.concatenate(([0], np.cumsum(is_labelled)))
        self._firsts = np.cumsum(predicted.lengths, dtype=np.int64) - predicted.lengths
        self._expected = predicted.ids[is_labelled]
        self.rows = len(self._expected)

    def score(
        self, network: nn.Module, micro_batch: MicroBatch, number: int, device: torch.device
    ) -> Iterator[tuple[int, np.ndarray]]:
        assert micro_batch.starts is not None
        guesses = network(*self._task.collate(micro_batch, device).inputs, label_predictions)
        values = torch.stack([guesses.nll_m.double(), guesses.best_m.double()], dim=1)
        # The labels of a part of a text are consecutive, both in the held-out set and in the batch.
        first = self._before[self._firsts[micro_batch.pair_ids] + micro_batch.starts]
        counts = self._task.targets(micro_batch)
        yield from zip(ranges(first, counts).tolist(), values.cpu().numpy(), strict=True)

    def summarise(self, table: np.ndarray) -> ValidationResult:
        expected, predicted = self._expected, table[:, 1].astype(np.int64)
        loss = math.fsum(table[:, 0].tolist()) / self.rows
        wanted, made = self._by_text(expected), self._by_text(predicted)
        values = {
            "loss": loss if math.isfinite(loss) else None,
            "accuracy": accuracy(expected, predicted),
            "macro_f1": macro_f1(expected, predicted, len(self._task.labels)),
        }
        data = self._task.recipe.data
        if isinstance(data, TaggedDataConfig) and data.has_spans:
            values["span_f1"] = span_f1(wanted, made)
        scores = scores_of(values, TASKS["token_classification"].scores)
        return ValidationResult(scores, self._examples(wanted, made))

    def _by_text(self, numbers: np.ndarray) -> list[Labels]:
        """Return the names of labels, grouped by text, from the numbers of all labels."""
        names = [self._task.labels[number] for number in numbers.tolist()]
        bounds = [*self._before[self._firsts].tolist(), len(names)]
        return [names[start:stop] for start, stop in pairwise(bounds)]

    def _examples(self, expected: list[Labels], predicted: list[Labels]) -> list[ShownExample]:
        """Return examples at even intervals, because files are often sorted by label."""
        texts = self._heldout.texts[TEXT]
        numbers = range(0, len(texts), -(-len(texts) // SAMPLES))
        return [
            ShownExample(texts[n], " ".join(expected[n]), " ".join(predicted[n])) for n in numbers
        ]
