"""Torch side of translation language modelling: masked language modelling of pairs.

A validation scores the masked tokens of a pair twice: with both sides as input, and with only the
side of the token, as in masked language modelling. The difference shows how much the other language
contributes.
"""

import math
from collections.abc import Sequence

import numpy as np

from data_pipeline.batching.task import HeldOut
from data_pipeline.tasks.masked_lm import TranslationLanguageModelData
from data_pipeline.tasks.masked_text import masked_pair_text
from foundation.tasks import TASKS
from run_store.scores import scores_of
from trainer.tasks.masked_lm import MaskedLanguageModelling, MaskedScoring
from trainer.tasks.task import ValidationResult, loss_scores


class TranslationLanguageModelling(MaskedLanguageModelling):
    """Task of pairs with masked tokens; each side of a pair is a segment with positions from 0."""

    role = "pair"

    def scoring(self, heldout: HeldOut) -> "PairScoring":
        return PairScoring(self, heldout)

    def shown(self, ids: Sequence[int]) -> str:
        return masked_pair_text(self._tokenizer, ids)


class PairScoring(MaskedScoring):
    """Scoring of pairs as in masked language modelling, and by the loss on each side alone."""

    def __init__(self, task: TranslationLanguageModelling, heldout: HeldOut) -> None:
        super().__init__(task, heldout)
        assert isinstance(task.data, TranslationLanguageModelData)
        self._together = len(self.batches)
        self.batches += task.data.single_side_micro_batches(
            heldout, task.tokenizers, task.recipe.data_settings
        )
        self.rows = len(self.batches)

    def summarise(self, table: np.ndarray) -> ValidationResult:
        together = super().summarise(table[: self._together])
        alone = math.fsum(table[self._together :, 0].tolist()) / self._units
        more = scores_of({"alone_loss": loss_scores(alone)["loss"]}, TASKS["tlm"].scores)
        return ValidationResult(together.scores | more)
