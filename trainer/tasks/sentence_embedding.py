"""Torch side of sentence embedding: contrastive training on pairs, scored by retrieval."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from data_pipeline.arrays import concatenate
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.embedding import EmbeddingBatchingConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.tokenizers.tokenizer import Tokenizer, shared_tokenizer
from foundation.tasks import TASKS
from model.config.sentence_encoder import SentenceEncoderConfig
from model.heads.sentence_encoder import SentenceEncoder
from run_store.scores import scores_of
from trainer.recipe import TrainingRecipe
from trainer.tasks.batch import DeviceBatch, device_batch
from trainer.tasks.batch_scoring import AccuracyScoring
from trainer.tasks.flops import PaddedSizes, embedding_sizes
from trainer.tasks.rows import sentence_rows
from trainer.tasks.task import ShownExample, TrainingTask, ValidationResult

SAMPLES = 3


def build_sentence_encoder(
    recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]
) -> SentenceEncoder:
    """Build the encoder-only Transformer that pools hidden states into an embedding."""
    assert isinstance(recipe.model, SentenceEncoderConfig)
    assert isinstance(recipe.batching, EmbeddingBatchingConfig)
    (size,) = {tokenizer.vocabulary_size for tokenizer in tokenizers.values()}
    return SentenceEncoder(
        recipe.model, size, recipe.batching.context_length, recipe.engine.attention
    )


class SentenceEmbedding(TrainingTask):
    """Task of sentence pairs, for a network with the `forward` of SentenceEncoder."""

    def collate(self, micro_batch: MicroBatch, device: torch.device) -> DeviceBatch:
        """Return a batch of tokens, segments, positions and parts, with all sources first.

        The tensors are int64 [2 · pairs, longest].
        """
        sentences = concatenate([micro_batch.fields[name] for name in (SOURCE, TARGET)])
        rows = sentence_rows(sentences, shared_tokenizer(self.tokenizers).pad_id)
        *values, parts = rows
        numbers = (micro_batch.pair_ids, sentences.lengths)
        return device_batch(rows, numbers, [array[parts >= 0] for array in values], device)

    def sizes(self, micro_batch: MicroBatch) -> PaddedSizes:
        return embedding_sizes(micro_batch, self.recipe.engine.attention)

    def targets(self, micro_batch: MicroBatch) -> np.ndarray:
        return np.ones(len(micro_batch.pair_ids), dtype=np.int64)

    def scoring(self, heldout: HeldOut) -> "EmbeddingScoring":
        return EmbeddingScoring(self, heldout)


class EmbeddingScoring(AccuracyScoring[SentenceEmbedding]):
    """Scoring by loss, and by the share of sentences whose translation is the nearest sentence.

    Loss and share are means over both directions of a pair. A sentence is compared only with the
    sentences of its group. The groups are the same for every run, and each group has a row of the
    table.
    """

    def summarise(self, table: np.ndarray) -> ValidationResult:
        nll, right = (math.fsum(column.tolist()) / self._units for column in table.T)
        values = {
            "loss": nll if math.isfinite(nll) else None,
            "retrieval_accuracy": 100 * right,
        }
        return ValidationResult(scores_of(values, TASKS["sentence_embedding"].scores))

    @torch.no_grad()
    def samples(self, network: nn.Module) -> list[ShownExample]:
        """Return the first sources of the set, their translations, and their nearest targets."""
        assert isinstance(network, SentenceEncoder)
        device = next(network.parameters()).device
        vectors: Tensor = network.embed(*self._task.collate(self.batches[0], device).inputs)
        source_pd, target_pd = vectors.chunk(2)
        nearest = (source_pd[:SAMPLES] @ target_pd.T).argmax(dim=1).tolist()
        sources, targets = self._heldout.texts[SOURCE], self._heldout.texts[TARGET]
        return [
            ShownExample(sources[n], targets[n], targets[near]) for n, near in enumerate(nearest)
        ]
