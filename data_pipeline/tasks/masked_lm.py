"""Masked language modelling: some tokens of documents are hidden and must be predicted.

A document is stored as BOS, its tokens, EOS, and packed into rows, as for a language model. The
hidden tokens are drawn once for each pass of the corpus, before documents are cut. A micro-batch
has the network's input tokens in TEXT, and the tokens to predict in LABELS_FIELD. In a held-out
set, the same tokens are hidden in every validation and in all runs.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, UInt64Array
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import Examples, HeldOut
from data_pipeline.config.data import DataSettings
from data_pipeline.config.masking import MaskedBatchingConfig
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest_header import SpecialIds
from data_pipeline.random_keys import example_seeds
from data_pipeline.tasks.causal_lm import CausalLanguageModelData, RowsShape
from data_pipeline.tasks.masking import (
    IGNORE_INDEX,
    LABELS_FIELD,
    MASK,
    MaskingSeeds,
    mask_tokens,
    vocabulary_of,
)
from data_pipeline.tokenizers.tokenizer import Tokenizer

HELDOUT_SEED = 0


class MaskedLanguageModelData(CausalLanguageModelData):
    """Data side of masked language modelling, in numpy; it stores documents like `causal_lm`.

    The torch side is in `trainer.tasks.masked_lm`.
    """

    before = 0

    def own_pieces(self) -> tuple[str, ...]:
        return (MASK,)

    def realises(self, settings: DataSettings) -> bool:
        return True

    def realise(
        self, examples: Examples, settings: DataSettings, tokenizers: Mapping[str, Tokenizer]
    ) -> dict[str, FieldArrays]:
        seeds = partial(examples.seeds, seed=settings.seed, field_number=0)
        return self.masked(examples.fields, settings, tokenizers, seeds)

    def masked(
        self,
        fields: Mapping[str, FieldArrays],
        settings: DataSettings,
        tokenizers: Mapping[str, Tokenizer],
        seeds: MaskingSeeds,
    ) -> dict[str, FieldArrays]:
        """Return TEXT, in which some tokens are hidden, and LABELS_FIELD, the tokens to predict.

        Args:
            seeds: see `MaskingSeeds`.
        """
        vocabulary = vocabulary_of(tokenizers[TEXT])
        masking = settings.batching_as(MaskedBatchingConfig).masking
        seen, labels = mask_tokens(fields[TEXT], vocabulary, masking, seeds)
        return {TEXT: seen, LABELS_FIELD: labels}

    def heldout_fields(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> dict[str, FieldArrays]:
        fields = super().heldout_fields(heldout, tokenizers, settings)
        seeds = partial(heldout_seeds, numbers=np.arange(len(heldout)))
        return self.masked(fields, settings, tokenizers, seeds)

    def units(self, micro_batch: MicroBatch) -> int:
        return int((micro_batch.fields[LABELS_FIELD].ids != IGNORE_INDEX).sum())

    def synthetic(self, shape: RowsShape, special: SpecialIds) -> MicroBatch:
        """Return a micro-batch in which all tokens must be predicted, the shape's worst case."""
        # Rows of two or more tokens get two parts each, because only rows with several parts need
        # an attention mask.
        batch = super().synthetic(shape, special)
        return replace(batch, fields={**batch.fields, LABELS_FIELD: batch.fields[TEXT]})

    def dummy(self, special: SpecialIds) -> MicroBatch:
        """Return a micro-batch of one document of one token."""
        return self.synthetic(RowsShape(1, 1), special)


def heldout_seeds(use: int, numbers: Int64Array) -> UInt64Array:
    """Return the seeds of a held-out set's texts, independent of the recipe's seed: [texts].

    Args:
        numbers: [texts], indices of the texts in the set.
    """
    return example_seeds(use, HELDOUT_SEED, 0, 0, numbers)


TASK = MaskedLanguageModelData()
