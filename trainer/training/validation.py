"""Validation: the scores of a held-out set, computed by all ranks together.

The batches are planned from lengths alone, so they are the same for any number of ranks; rank r of
R takes every R-th batch. The results form a table. One rank writes each row, and a sum over the
ranks collects all rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import nn

from run_store.scores import Score
from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement
from trainer.scores import SCORES
from trainer.tasks.task import Scoring, ValidationResult


class ValidatorProtocol(Protocol):
    """Interface of a validator for the training loop."""

    def run(
        self, model: nn.Module, stop_requested: Callable[[], bool]
    ) -> ValidationResult | None: ...


class Validator:
    """Validator that scores a model on one held-out set."""

    def __init__(
        self, scoring: Scoring, placement: Placement, more_scores: Sequence[str] = ()
    ) -> None:
        """Assign every R-th batch to this rank.

        Args:
            scoring: the batches of the held-out set and how to score them.
            placement: this rank and the number of ranks.
            more_scores: the names of registered scores to compute from the generated texts.
        """
        self._scoring = scoring
        self._more_scores = more_scores
        self._placement = placement
        self._mine = range(placement.rank, len(scoring.batches), placement.world_size)

    @torch.inference_mode()
    def run(
        self, model: nn.Module, stop_requested: Callable[[], bool] = lambda: False
    ) -> ValidationResult | None:
        """Score a model on the held-out set; a collective that every rank must call.

        Args:
            model: the model in evaluation mode.
            stop_requested: returns whether this rank was asked to stop.

        Returns:
            The result, equal on all ranks except for samples, which only rank 0 adds. None on all
            ranks if any rank was asked to stop before the end.
        """
        scoring = self._scoring
        # The last row is 1 if a rank was interrupted.
        table = np.zeros((scoring.rows + 1, scoring.columns))
        device = self._placement.torch_device
        for number in self._mine:
            if stop_requested():
                table[-1, 0] = 1
                break
            for row, values in scoring.score(model, scoring.batches[number], number, device):
                table[row, : len(values)] = values
        table = sum_over_ranks(torch.from_numpy(table), self._placement).numpy()
        if table[-1, 0]:
            return None
        result = self._with_more_scores(scoring.summarise(table[:-1]))
        if self._placement.rank:
            return result
        return replace(result, examples=[*result.examples, *scoring.samples(model)])

    def _with_more_scores(self, result: ValidationResult) -> ValidationResult:
        expected = [example.expected for example in result.examples]
        more = {}
        for name in self._more_scores:
            value = float(SCORES[name].of(result.texts, expected))
            finite = value if math.isfinite(value) else None
            more[name] = Score(
                value=finite,
                more_is_better=SCORES[name].more_is_better,
                decoding=result.decoding,
            )
        return replace(result, scores={**result.scores, **more})
