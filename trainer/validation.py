"""Validation: loss and sacreBLEU on the held-out set, distributed over the ranks.

The batches are planned from lengths alone, so they are the same for any number of ranks; rank r
of R takes every R-th. One sum over the ranks collects losses and translations; in it each pair has
a row of its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sacrebleu
import torch

from data_pipeline.batching.heldout import HeldOut, heldout_micro_batches
from data_pipeline.dataset.manifest import SOURCE, TARGET
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.config import DecodingConfig
from model.generation.search import greedy_search
from model.transformer import Transformer
from trainer.batch import to_device
from trainer.distributed import sum_over_ranks
from trainer.placement import Placement
from trainer.scores import Scores, scores_of

_NLL, _LENGTH, _FIRST_ID = range(3)  # columns of the table that the ranks sum


@dataclass(frozen=True)
class ValidationResult:
    """Scores of one validation, and the translations that it made."""

    scores: Scores
    translations: list[str]


class Validator:
    """Scores a model on one held-out set."""

    def __init__(
        self,
        heldout: HeldOut,
        tokenizers: dict[str, Tokenizer],
        *,
        max_tokens_per_micro_batch: int,
        decoding: DecodingConfig,
        placement: Placement,
    ) -> None:
        self.heldout = heldout
        self._target_tokenizer = tokenizers[TARGET]
        self._decoding = decoding
        self._placement = placement
        batches = heldout_micro_batches(heldout, tokenizers, max_tokens_per_micro_batch)
        self._batches = batches[placement.rank :: placement.world_size]
        self._target_tokens = sum(batch.tokens(TARGET) for batch in batches)
        longest = max(int(batch.fields[SOURCE].lengths.max()) for batch in batches)
        self._max_output = int(longest * decoding.max_length_factor) + decoding.max_extra_length

    @torch.inference_mode()
    def run(
        self, model: Transformer, stop_requested: Callable[[], bool] = lambda: False
    ) -> ValidationResult | None:
        """Validate a model; a collective: every rank calls it, and every rank gets the result.

        The result is None on all ranks if any of them was asked to stop before it was done.
        """
        pairs = len(self.heldout.sources)
        table = np.zeros((pairs + 1, _FIRST_ID + self._max_output))  # the last row: interrupted
        for micro_batch in self._batches:
            if stop_requested():
                table[-1, 0] = 1
                break
            batch = to_device(micro_batch, model.vocabulary, self._placement.torch_device)
            sums = model(batch.source, batch.target_input, batch.target_output, 0.0)
            table[micro_batch.pair_ids[0], _NLL] = float(sums.nll)
            hypotheses = greedy_search(model, batch.source, self._decoding)
            for pair, hypothesis in zip(micro_batch.pair_ids, hypotheses, strict=True):
                length = len(hypothesis.ids)
                table[pair, _LENGTH] = length
                table[pair, _FIRST_ID : _FIRST_ID + length] = hypothesis.ids
        table = sum_over_ranks(torch.from_numpy(table), self._placement).numpy()
        if table[-1, 0]:
            return None
        table = table[:-1]
        ids = table[:, _LENGTH:].astype(np.int64).tolist()
        translations = self._target_tokenizer.decode([row[1 : 1 + row[0]] for row in ids])
        bleu = sacrebleu.corpus_bleu(translations, [self.heldout.targets], force=True)
        loss = math.fsum(table[:, _NLL].tolist()) / self._target_tokens
        return ValidationResult(translation_scores(loss, bleu.score), translations)


def translation_scores(loss: float, bleu: float) -> Scores:
    """The scores of a validation.

    Args:
        loss: nats per target token, without label smoothing.
        bleu: sacreBLEU's BLEU, 0 to 100.
    """
    finite = math.isfinite(loss)
    perplexity = math.exp(min(loss, 700.0)) if finite else None
    return scores_of({"loss": loss if finite else None, "perplexity": perplexity, "bleu": bleu})


def save_translations(folder: Path, name: str, translations: list[str]) -> Path:
    """Keep hypotheses, one a line, so that a score can be checked later."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.txt"
    path.write_text("".join(f"{line}\n" for line in translations), encoding="utf-8")
    return path
