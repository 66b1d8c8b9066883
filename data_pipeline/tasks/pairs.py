"""Common base of the tasks on pairs of a source and a target sentence.

    corpora ──rules──▶ pairs ──encode──▶ shards ──realise──▶ the same pairs, segmented again

Each pass may sample new segmentations (subword sampling).
"""

from collections.abc import Mapping

import numpy as np

from data_pipeline.arrays import BoolArray, FieldArrays, Int64Array, UInt64Array, concatenate
from data_pipeline.batching.task import DataTask, Examples
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.config.pair import SOURCE, TARGET, PairCorpusConfig, PairDataConfig
from data_pipeline.corpora.cleaning import EMPTY, Rule, pair_rules
from data_pipeline.dataset.manifest_header import FieldInfo, ManifestHeader
from data_pipeline.random_keys import SUBWORD_SAMPLING
from data_pipeline.tokenizers.tokenizer import Tokenizer

TOO_LONG = {SOURCE: "source_too_long", TARGET: "target_too_long"}


class PairsData(DataTask):
    """Base of the tasks on pairs: storage of pairs, and sampling of their segmentations."""

    def fields(self, data: DataConfig) -> tuple[FieldInfo, ...]:
        assert isinstance(data, PairDataConfig)
        return (
            FieldInfo(name=SOURCE, role="source", language=data.source_language),
            FieldInfo(name=TARGET, role="target", language=data.target_language),
        )

    def rules(self, data: DataConfig, corpus: CorpusConfig) -> list[Rule]:
        assert isinstance(data, PairDataConfig)
        assert isinstance(corpus, PairCorpusConfig)
        return pair_rules(data.cleaning, corpus)

    def fewest_tokens(self, field: FieldInfo, tag: str | None) -> int:
        """Return the length of one text token and EOS, plus one for the tag of a source."""
        return 2 + (field.name == SOURCE and tag is not None)

    def drops(
        self, lengths: Mapping[str, Int64Array], data: DataConfig, tags: Mapping[str, str]
    ) -> dict[str, BoolArray]:
        assert isinstance(data, PairDataConfig)
        source, target = lengths[SOURCE], lengths[TARGET]
        nothing = 1 + (SOURCE in tags)  # tokens of an empty source: EOS, and the tag
        # A text of only zero-width and control characters is not empty for the rules on text, but
        # SentencePiece's normalisation removes these characters.
        return {
            EMPTY: (source == nothing) | (target == 1),
            TOO_LONG[SOURCE]: source > data.max_source_length,
            TOO_LONG[TARGET]: target > data.max_target_length,
        }

    def texts_read(self, settings: DataSettings) -> frozenset[str]:
        return frozenset(_sampled(settings))

    def realise(
        self, examples: Examples, settings: DataSettings, tokenizers: Mapping[str, Tokenizer]
    ) -> dict[str, FieldArrays]:
        fields = dict(examples.fields)
        for number, name in enumerate((SOURCE, TARGET)):
            if name in _sampled(settings):
                fields[name] = resample(
                    tokenizers[name],
                    examples.texts[name],
                    fields[name],
                    examples.seeds(SUBWORD_SAMPLING, settings.seed, number),
                    alpha=settings.tokenizer.sampling.alpha,
                    max_length=_sampled(settings)[name],
                    tag=examples.corpus.tag if name == SOURCE else None,
                )
        return fields

    def heldout_limits(self, data: DataConfig) -> dict[str, int]:
        assert isinstance(data, PairDataConfig)
        limits = {SOURCE: data.max_source_length, TARGET: data.max_target_length}
        return {field: max(limit, data.max_heldout_length) for field, limit in limits.items()}


def _sampled(settings: DataSettings) -> dict[str, int]:
    """Return the fields whose segmentations are sampled, each with its maximum length."""
    data, sampling = settings.data, settings.tokenizer.sampling
    assert isinstance(data, PairDataConfig)
    if not sampling.alpha:
        return {}
    limits = {SOURCE: data.max_source_length, TARGET: data.max_target_length}
    wanted = {"both": (SOURCE, TARGET), "source": (SOURCE,), "target": (TARGET,)}[sampling.sides]
    budget = settings.batching.max_tokens_per_micro_batch
    return {field: min(limits[field], budget) for field in wanted}


def longest_sequences(manifest: ManifestHeader, settings: DataSettings) -> dict[str, int]:
    """Return the maximum length of each field's sequences, including sampled segmentations."""
    longest, sampled = manifest.longest(), _sampled(settings)
    return {field: max(length, sampled.get(field, 0)) for field, length in longest.items()}


def resample(
    tokenizer: Tokenizer,
    sentences: list[str],
    stored: FieldArrays,
    seeds: UInt64Array,
    *,
    alpha: float,
    max_length: int,
    tag: str | None,
) -> FieldArrays:
    """Sample a random segmentation of each sentence; see `Tokenizer.sample_field`.

    Args:
        stored: the segmentations stored in the dataset, which are not longer than `max_length`.
        max_length: maximum pieces of a sentence, tag and EOS included. If a sampled segmentation is
            longer, the stored one is used.
    """
    sampled = tokenizer.sample_field(sentences, seeds, alpha, tag)
    assert len(sampled.lengths) == len(stored.lengths), "both belong to the same sentences"
    numbers = np.arange(len(sentences))
    chosen = np.where(sampled.lengths > max_length, len(sentences) + numbers, numbers)
    return concatenate([sampled, stored]).take(chosen)
