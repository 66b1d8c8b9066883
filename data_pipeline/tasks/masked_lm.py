"""Masked language modelling: some tokens of documents, or of pairs, are hidden and predicted.

A document is stored as BOS, its tokens, EOS, and packed into rows, as for a language model. The
hidden tokens are drawn once for each pass of the corpus, before documents are cut. A micro-batch
has the network's input tokens in TEXT, and the tokens to predict in LABELS_FIELD. In a held-out
set, the same tokens are hidden in every validation and in all runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from data_pipeline.arrays import (
    FieldArrays,
    Int64Array,
    UInt64Array,
    concatenate,
    sums_of_sequences,
)
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.packing import Part, plan_uncut
from data_pipeline.batching.plan import WindowPlan
from data_pipeline.batching.task import Examples, HeldOut
from data_pipeline.config.data import DataSettings
from data_pipeline.config.masking import MaskedBatchingConfig, PairMaskedBatchingConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import ManifestHeader, SpecialIds
from data_pipeline.errors import BatchingError
from data_pipeline.random_keys import (
    PAIR_SHUFFLE,
    SINGLE_SIDES,
    example_seeds,
    permutation,
    splitmix64,
    stream_state,
    uniform,
)
from data_pipeline.tasks.causal_lm import CausalLanguageModelData, RowsShape
from data_pipeline.tasks.masking import (
    IGNORE_INDEX,
    LABELS_FIELD,
    MASK,
    SEGMENTS,
    MaskingSeeds,
    mask_tokens,
    vocabulary_of,
)
from data_pipeline.tasks.pairs import PairsData, longest_sequences
from data_pipeline.tokenizers.tokenizer import Tokenizer

HELDOUT_SEED = 0
SIDES = (SOURCE, TARGET)  # a token's segment is the index of its side

Fields = dict[str, FieldArrays]


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


class TranslationLanguageModelData(PairsData):
    """Data side of translation language modelling, in numpy: both sides of a pair form one text.

    A hidden word of one language can be predicted from its translation (Lample and Conneau 2019,
    §3.3). Pairs are stored as for translation. A micro-batch has the following texts, and the side
    of each token in SEGMENTS:

        stored     A man rides EOS      Ein Mann fährt EOS
        text       BOS  A man rides EOS BOS Ein Mann fährt EOS
        segments    0   0  0    0    0   1   1    1    1    1

    Each side is masked like a separate text, so the same tokens are hidden with and without its
    translation. No pair is cut in training. In a held-out set the same tokens are hidden in all
    runs: those that `TASK` would hide in a set that lists all sources and then all targets.
    """

    def own_pieces(self) -> tuple[str, ...]:
        return TASK.own_pieces()

    def realises(self, settings: DataSettings) -> bool:
        return True

    def realise(
        self, examples: Examples, settings: DataSettings, tokenizers: Mapping[str, Tokenizer]
    ) -> Fields:
        stored = super().realise(examples, settings, tokenizers)
        seeds = [
            partial(examples.seeds, seed=settings.seed, field_number=number)
            for number in range(len(SIDES))
        ]
        return _joined(_masked_sides(stored, settings, tokenizers, seeds))

    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        longest = longest_sequences(manifest, settings)
        context_length = settings.batching_as(PairMaskedBatchingConfig).context_length
        whole = sum(longest.values()) + len(SIDES)  # a BOS before each side
        if whole > context_length:
            raise BatchingError(
                f"A pair may have {longest[SOURCE]} and {longest[TARGET]} tokens, {whole} with BOS "
                f"before each side, but batching.context_length is {context_length} and pairs are "
                f"never cut. Raise batching.context_length to {whole} or more, or lower "
                "data.max_source_length and data.max_target_length and prepare again."
            )

    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        batching = settings.batching_as(PairMaskedBatchingConfig)
        coordinate = (settings.seed, epoch, window)
        wholes = fields[TEXT].lengths.tolist()
        segments = fields[SEGMENTS]  # 1 for each token of the target
        sources = (segments.lengths - sums_of_sequences(segments.ids, segments.lengths)).tolist()
        drawn = uniform(splitmix64(stream_state(SINGLE_SIDES, *coordinate), len(wholes)))
        alone = (drawn < batching.alone).tolist()
        parts: list[Part] = []
        for pair in permutation(len(wholes), PAIR_SHUFFLE, *coordinate).tolist():
            bounds = [0, sources[pair], wholes[pair]] if alone[pair] else [0, wholes[pair]]
            parts += [Part(pair, *ends) for ends in pairwise(bounds)]
        return plan_uncut(
            parts,
            batching.context_length,
            batching.max_tokens_per_micro_batch,
            seed=settings.seed,
            epoch=epoch,
            window=window,
        )

    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        joined = _joined(_masked_heldout(heldout, tokenizers, settings))
        return TASK.packed_heldout(np.arange(len(heldout)), joined, settings)

    def single_side_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        """Return the micro-batches of a held-out set with each side as a separate text.

        The hidden tokens are the same as in `heldout_micro_batches`.
        """
        source, target = _masked_heldout(heldout, tokenizers, settings)
        apart = {name: concatenate([source[name], target[name]]) for name in source}
        numbers = np.tile(np.arange(len(heldout)), len(SIDES))
        return TASK.packed_heldout(numbers, apart, settings)

    def units(self, micro_batch: MicroBatch) -> int:
        return TASK.units(micro_batch)

    def widest(self, manifest: ManifestHeader, settings: DataSettings) -> list[RowsShape]:
        return TASK.widest(manifest, settings)

    def synthetic(self, shape: RowsShape, special: SpecialIds) -> MicroBatch:
        return TASK.synthetic(shape, special)

    def dummy(self, special: SpecialIds) -> MicroBatch:
        return TASK.dummy(special)


def _masked_sides(
    stored: Mapping[str, FieldArrays],
    settings: DataSettings,
    tokenizers: Mapping[str, Tokenizer],
    seeds: Sequence[MaskingSeeds],
) -> Iterator[Fields]:
    """Yield the fields TEXT, LABELS_FIELD and SEGMENTS of each side."""
    masking = settings.batching_as(PairMaskedBatchingConfig).masking
    for number, name in enumerate(SIDES):
        tokenizer = tokenizers[name]
        text = stored[name].with_first(tokenizer.bos_id)
        seen, labels = mask_tokens(text, vocabulary_of(tokenizer), masking, seeds[number])
        segments = FieldArrays(np.full(len(text.ids), number, dtype=np.int32), text.lengths)
        yield {TEXT: seen, LABELS_FIELD: labels, SEGMENTS: segments}


def _masked_heldout(
    heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
) -> Iterator[Fields]:
    stored = {name: tokenizers[name].encode_field(heldout.texts[name]) for name in SIDES}
    numbers = np.arange(len(SIDES) * len(heldout)).reshape(len(SIDES), -1)
    seeds = [partial(heldout_seeds, numbers=of_side) for of_side in numbers]
    return _masked_sides(stored, settings, tokenizers, seeds)


def _joined(sides: Iterator[Fields]) -> Fields:
    """Join each pair's source and target into one sequence, in every field."""
    source, target = sides
    return {name: _one_after_the_other(source[name], target[name]) for name in source}


def _one_after_the_other(first: FieldArrays, second: FieldArrays) -> FieldArrays:
    numbers = np.arange(2 * len(first.lengths)).reshape(2, -1)
    ids = concatenate([first, second]).take(numbers.T.ravel()).ids
    return FieldArrays(ids, first.lengths + second.lengths)


TLM = TranslationLanguageModelData()
