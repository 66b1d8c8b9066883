"""Torch side of translation: padded batches of pairs, scored by loss and sacreBLEU."""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
import sacrebleu
import torch
from torch import nn

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.pair import SOURCE, TARGET, PairDataConfig
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.config.transformer import GREEDY, DecodingConfig, ModelConfig, NetworkConfig
from model.generation.search import greedy_search
from model.losses.loss import CrossEntropy
from model.networks.transformer import Transformer, Vocabulary
from run_store.record.probe import Probe
from run_store.scores import Scores, scores_of
from trainer.recipe import TrainingRecipe
from trainer.tasks.batch import PairBatch, to_device
from trainer.tasks.batch_scoring import BatchScoring
from trainer.tasks.flops import PaddedSizes, pair_sizes
from trainer.tasks.probing import probe
from trainer.tasks.task import ShownExample, TrainingTask, ValidationResult, loss_scores

_NLL, _LENGTH, _FIRST_ID = range(3)  # columns of a validation's table


def build_transformer(recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]) -> Transformer:
    """Build the encoder-decoder Transformer."""
    assert isinstance(recipe.model, ModelConfig)
    vocabulary = vocabulary_of(tokenizers, recipe.model)
    return Transformer(recipe.model, vocabulary, recipe.engine.attention)


def vocabulary_of(
    tokenizers: Mapping[str, Tokenizer], model: NetworkConfig | None = None
) -> Vocabulary:
    """Return the properties of the tokenizers that the model needs.

    Args:
        tokenizers: the tokenizers by field.
        model: the model's settings, which determine the first token of a target. If None, targets
            start with BOS.
    """
    target = tokenizers[TARGET]
    starts_with_padding = isinstance(model, ModelConfig) and model.decoder_start == "pad"
    return Vocabulary(
        source_size=tokenizers[SOURCE].vocabulary_size,
        target_size=target.vocabulary_size,
        pad_id=target.pad_id,
        bos_id=target.pad_id if starts_with_padding else target.bos_id,
        eos_id=target.eos_id,
    )


class TranslationTask(TrainingTask):
    """Task of sentence pairs, for an encoder-decoder network with the `forward` of Transformer."""

    def collate(self, micro_batch: MicroBatch, device: torch.device) -> PairBatch:
        return to_device(micro_batch, self._vocabulary, device)

    def sizes(self, micro_batch: MicroBatch) -> PaddedSizes:
        return pair_sizes(micro_batch, self.recipe.engine.attention)

    def targets(self, micro_batch: MicroBatch) -> np.ndarray:
        return micro_batch.fields[TARGET].lengths

    def scoring(self, heldout: HeldOut) -> "TranslationScoring":
        return TranslationScoring(self, heldout)

    def probe(self, network: nn.Module, sentence: str) -> Probe:
        """Probe the network with a sentence; prepend the tag of the validation set, if any."""
        assert isinstance(network, Transformer)
        assert isinstance(self.recipe.data, PairDataConfig)
        tag = self.recipe.data.validation.tag
        return probe(network, self.tokenizers[SOURCE], self.tokenizers[TARGET], sentence, tag)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return vocabulary_of(self.tokenizers, self.recipe.model)


class TranslationScoring(BatchScoring[TranslationTask]):
    """Scoring by loss, and by BLEU of greedy translations; each pair has a row of the table."""

    scores_parts = True

    def __init__(self, task: TranslationTask, heldout: HeldOut) -> None:
        super().__init__(task, heldout)
        assert isinstance(task.recipe.decoding, DecodingConfig)
        self._decoding = task.recipe.decoding
        longest = max(int(batch.fields[SOURCE].lengths.max()) for batch in self.batches)
        max_output = int(longest * self._decoding.max_length_factor)
        self.rows = len(heldout)
        self.columns = _FIRST_ID + max_output + self._decoding.max_extra_length

    def score(
        self, network: nn.Module, micro_batch: MicroBatch, number: int, device: torch.device
    ) -> Iterator[tuple[int, np.ndarray]]:
        assert isinstance(network, Transformer)
        batch = self._task.collate(micro_batch, device)
        # Store the loss of the whole batch in the row of its first pair.
        nll = float(network(*batch.inputs, CrossEntropy()).nll)
        hypotheses = greedy_search(network, batch.source, self._decoding)
        for pair, hypothesis in zip(micro_batch.pair_ids.tolist(), hypotheses, strict=True):
            yield pair, np.array([nll, len(hypothesis.ids), *hypothesis.ids])
            nll = 0.0

    def summarise(self, table: np.ndarray) -> ValidationResult:
        ids = table[:, _LENGTH:].astype(np.int64).tolist()
        translations = self._task.tokenizers[TARGET].decode([row[1 : 1 + row[0]] for row in ids])
        sources, references = self._heldout.texts[SOURCE], self._heldout.texts[TARGET]
        bleu = sacrebleu.corpus_bleu(translations, [references], force=True)
        loss = math.fsum(table[:, _NLL].tolist()) / self._units
        columns = zip(sources, references, translations, strict=True)
        scores = translation_scores(loss, bleu.score)
        return ValidationResult(scores, [ShownExample(*texts) for texts in columns], GREEDY)


def translation_scores(loss: float, bleu: float) -> Scores:
    """Return the scores of a validation.

    Args:
        loss: nats per target token, without label smoothing.
        bleu: sacreBLEU's BLEU of greedy translations, 0 to 100.
    """
    scores = scores_of({**loss_scores(loss), "bleu": bleu})
    return scores | {"bleu": scores["bleu"].model_copy(update={"decoding": GREEDY})}
