"""Torch side of masked language modelling: packed rows, scored by predictions of masked tokens."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from data_pipeline.arrays import sums_of_sequences
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.data import PackedBatchingConfig
from data_pipeline.config.text import TEXT
from data_pipeline.tasks.masked_text import masked_text
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD, SEGMENTS
from data_pipeline.tokenizers.tokenizer import Tokenizer, shared_tokenizer
from foundation.tasks import TASKS
from model.blocks.packing import packing_of_parts
from model.config.encoder_only import EncoderOnlyConfig
from model.heads.masked_head import MaskedLanguageModel
from run_store.scores import scores_of
from trainer.recipe import TrainingRecipe
from trainer.tasks.batch import DeviceBatch, device_batch
from trainer.tasks.batch_scoring import AccuracyScoring
from trainer.tasks.flops import PaddedSizes, row_sizes
from trainer.tasks.rows import part_rows
from trainer.tasks.task import Scoring, ShownExample, TrainingTask, ValidationResult, loss_scores

SAMPLES = 3


def build_masked_language_model(
    recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]
) -> MaskedLanguageModel:
    """Build the encoder-only Transformer with the head that predicts masked tokens."""
    assert isinstance(recipe.model, EncoderOnlyConfig)
    assert isinstance(recipe.batching, PackedBatchingConfig)
    (size,) = {tokenizer.vocabulary_size for tokenizer in tokenizers.values()}
    return MaskedLanguageModel(
        recipe.model, size, recipe.batching.context_length, recipe.engine.attention
    )


class MaskedLanguageModelling(TrainingTask):
    """Task of texts with masked tokens, for a network with the `forward` of MaskedLanguageModel.

    Attributes:
        role: the key of the texts in the result of `example_texts`.
    """

    role = "document"

    def collate(self, micro_batch: MicroBatch, device: torch.device) -> DeviceBatch:
        """Return a batch of tokens, segments, positions and parts, then places and targets.

        The first four are int64 [rows, longest row]. Places are the indices in the flattened rows
        at which a label is expected, and targets are these labels. Both are int64 [labels].
        """
        assert micro_batch.rows is not None
        assert micro_batch.starts is not None
        seen, labels = micro_batch.fields[TEXT], micro_batch.fields[LABELS_FIELD].ids
        sides = micro_batch.fields.get(SEGMENTS)
        segments = None if sides is None else sides.ids.astype(np.int64)
        pad_id = self._tokenizer.pad_id
        rows, values, places = part_rows(seen, micro_batch.rows, pad_id, segments)
        where = np.flatnonzero(labels != IGNORE_INDEX)
        fed = [*rows, places[where], labels[where].astype(np.int64)]
        numbers = (micro_batch.pair_ids, micro_batch.starts, micro_batch.rows)
        packing = packing_of_parts(torch.from_numpy(rows[-1]))
        return device_batch(fed, numbers, [*values, labels], device, packing)

    def sizes(self, micro_batch: MicroBatch) -> PaddedSizes:
        assert micro_batch.rows is not None
        outputs = int(np.count_nonzero(micro_batch.fields[LABELS_FIELD].ids != IGNORE_INDEX))
        lengths = micro_batch.fields[TEXT].lengths
        return row_sizes(lengths, micro_batch.rows, outputs, self.recipe.engine.attention)

    def targets(self, micro_batch: MicroBatch) -> np.ndarray:
        labels = micro_batch.fields[LABELS_FIELD]
        return sums_of_sequences(labels.ids != IGNORE_INDEX, labels.lengths)

    def scoring(self, heldout: HeldOut) -> Scoring:
        return MaskedScoring(self, heldout)

    def example_texts(self, micro_batch: MicroBatch) -> dict[str, list[str]]:
        """Return each text as the network reads it, and the masked pieces that it must predict."""
        labels = micro_batch.fields[LABELS_FIELD].rows()
        pieces = [[[token] for token in row if token != IGNORE_INDEX] for row in labels]
        return {
            self.role: [self.shown(ids) for ids in micro_batch.fields[TEXT].rows()],
            "to predict": [
                ", ".join(text.strip() for text in self._tokenizer.decode(row)) for row in pieces
            ],
        }

    def shown(self, ids: Sequence[int]) -> str:
        """Return the readable text of these ids, with masked tokens marked."""
        return masked_text(self._tokenizer, ids)

    @property
    def _tokenizer(self) -> Tokenizer:
        return shared_tokenizer(self.tokenizers)


class MaskedScoring(AccuracyScoring[MaskedLanguageModelling]):
    """Scoring by loss and accuracy over masked tokens, which are the same in every validation."""

    def summarise(self, table: np.ndarray) -> ValidationResult:
        nll, right = (math.fsum(column.tolist()) for column in table.T)
        values = {**loss_scores(nll / self._units), "accuracy": 100 * right / self._units}
        return ValidationResult(scores_of(values, TASKS["masked_lm"].scores))

    @torch.no_grad()
    def samples(self, network: nn.Module) -> list[ShownExample]:
        """Return the first held-out texts, each as masked, as the original, and as filled in."""
        assert isinstance(network, MaskedLanguageModel)
        batch = self.batches[0]
        seen, labels = batch.fields[TEXT], batch.fields[LABELS_FIELD]
        device = next(network.parameters()).device
        *inputs, place_m, _ = self._task.collate(batch, device).inputs
        hidden_btd = network.encoder(*inputs)
        best_m = network.logits(hidden_btd.flatten(0, 1)[place_m]).argmax(dim=-1).cpu().numpy()
        expected, made = seen.ids.copy(), seen.ids.copy()
        hidden = labels.ids != IGNORE_INDEX
        expected[hidden], made[hidden] = labels.ids[hidden], best_m
        ends = np.cumsum(seen.lengths)[:SAMPLES]
        texts = [
            [self._task.shown(ids.tolist()) for ids in np.split(of_all[: ends[-1]], ends[:-1])]
            for of_all in (seen.ids, expected, made)
        ]
        return [ShownExample(*three) for three in zip(*texts, strict=True)]
