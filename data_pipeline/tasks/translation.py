"""Translation: pairs of a source and a target sentence, batched by length.

Segmentations may be sampled anew in each pass (subword sampling). Each pair has a row of its own,
and a micro-batch has pairs of similar length, so that little is padded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import BoolArray, FieldArrays, Int32Array, Int64Array
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.plan import (
    WindowPlan,
    check_budget,
    cut,
    longest_field,
    plan_window,
    sort_by_length,
)
from data_pipeline.batching.task import DataTask, Examples, HeldOut, MicroBatchShape
from data_pipeline.config import DataConfig, DataSettings
from data_pipeline.corpora.cleaning import EMPTY, Rule
from data_pipeline.corpora.pair_rules import pair_rules
from data_pipeline.corpus_config import CorpusConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_records import FieldInfo, SpecialIds
from data_pipeline.pair_config import SOURCE, TARGET, PairCorpusConfig, PairDataConfig
from data_pipeline.random_keys import SUBWORD_SAMPLING
from data_pipeline.tokenizers.subword_sampling import resample
from data_pipeline.tokenizers.tokenizer import Tokenizer

TOO_LONG = {SOURCE: "source_too_long", TARGET: "target_too_long"}


@dataclass(frozen=True)
class PairShape(MicroBatchShape):
    """The padded size of a micro-batch of pairs; lengths in tokens, EOS included."""

    source_length: int
    target_length: int

    def __str__(self) -> str:
        return f"{self.rows} × ({self.source_length} source + {self.target_length} target) tokens"


def heldout_pairs(sources: list[str], targets: list[str], tag: str | None = None) -> HeldOut:
    """Sentences to translate or to score.

    Args:
        targets: references, or what translations have to begin with.
        tag: put before every source sentence.
    """
    return HeldOut({SOURCE: sources, TARGET: targets}, {} if tag is None else {SOURCE: tag})


def pair_micro_batches(
    heldout: HeldOut,
    tokenizers: Mapping[str, Tokenizer],
    budget: int,
    budget_of_squares: int | None = None,
) -> list[MicroBatch]:
    """Pairs sorted by length and cut by the budget; none is dropped.

    Args:
        budget: as in `plan_window`; a pair that exceeds it alone becomes a batch of its own.
        budget_of_squares: most that a batch's pairs times the square of its longest sequence may
            be, as attention scores are; None: as much as the budget allows.
    """
    fields = {
        field: tokenizers[field].encode_field(texts, heldout.tags.get(field))
        for field, texts in heldout.texts.items()
    }
    lengths = lengths_of(fields)
    pair_ids = np.arange(len(lengths), dtype=np.int64)
    return assemble(pair_ids, fields, plan_heldout(lengths, budget, budget_of_squares))


def plan_heldout(
    lengths: Int32Array | Int64Array, budget: int, budget_of_squares: int | None = None
) -> WindowPlan:
    """Sorts by length and cuts by budget, shortest first, without shuffling.

    Held-out pairs are never dropped, so one that alone exceeds the budget becomes a batch of its
    own.

    Args:
        lengths: [pairs, fields], EOS included.
        budget_of_squares: see `pair_micro_batches`.
    """
    order = sort_by_length(lengths)
    longest = longest_field(lengths[order])
    if budget_of_squares is not None:
        # The length at which the one budget leaves as many rows as the other one does.
        longest = np.maximum(longest, -(-(longest**2) * budget // budget_of_squares))
    return WindowPlan(order, cut(longest, budget))


class TranslationData(DataTask):
    """The numpy half of translation."""

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
        """A token and EOS, and the tag before a source sentence."""
        return 2 + (field.name == SOURCE and tag is not None)

    def drops(
        self, lengths: Mapping[str, Int64Array], data: DataConfig, tags: Mapping[str, str]
    ) -> dict[str, BoolArray]:
        assert isinstance(data, PairDataConfig)
        source, target = lengths[SOURCE], lengths[TARGET]
        nothing = 1 + (SOURCE in tags)  # tokens of an empty source: EOS, and the tag
        # Zero-width and control characters are text until SentencePiece's normalisation drops them.
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

    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        longest = np.array([list(manifest.longest().values())])
        check_budget(longest, settings.batching.max_tokens_per_micro_batch)

    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        budget = settings.batching.max_tokens_per_micro_batch
        return plan_window(lengths_of(fields), budget, settings.seed, epoch, window)

    def heldout_limits(self, data: DataConfig) -> dict[str, int]:
        assert isinstance(data, PairDataConfig)
        limits = {SOURCE: data.max_source_length, TARGET: data.max_target_length}
        return {field: max(limit, data.max_heldout_length) for field, limit in limits.items()}

    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        budget = settings.batching.max_tokens_per_micro_batch
        return pair_micro_batches(heldout, tokenizers, budget)

    def units(self, micro_batch: MicroBatch) -> int:
        return micro_batch.tokens(TARGET)

    def widest(self, manifest: Manifest, settings: DataSettings) -> list[PairShape]:
        """The longest pairs (few rows), the most tokens (many rows), the most attention scores.

        For every length of a micro-batch's longest sequence, this bounds its rows and both of its
        sides. Most of a pass's memory grows with the padded tokens, that of attention scores with
        the square of the lengths. For every micro-batch, one of the shapes is as large in either.
        """
        longest = _longest(manifest, settings)
        lengths = np.arange(_shortest(manifest), max(longest.values()) + 1)
        budget = settings.batching.max_tokens_per_micro_batch
        rows = np.minimum(budget // lengths, manifest.pairs)  # a window has at most an epoch's
        source, target = (np.minimum(lengths, longest[field]) for field in (SOURCE, TARGET))
        tokens = rows * (source + target)
        scores = rows * (source**2 + source * target + target**2)
        widest = dict.fromkeys([len(lengths) - 1, int(tokens.argmax()), int(scores.argmax())])
        return [PairShape(int(rows[i]), int(source[i]), int(target[i])) for i in widest]

    def synthetic(self, shape: PairShape, special: SpecialIds) -> MicroBatch:
        """A micro-batch of that shape without padding, of one ordinary token over and over."""
        taken = {special.pad, special.bos, special.eos}
        token = next(number for number in range(len(taken) + 1) if number not in taken)
        fields = {}
        for name, length in ((SOURCE, shape.source_length), (TARGET, shape.target_length)):
            ids = np.full((shape.rows, length), token, dtype=np.int32)
            ids[:, -1] = special.eos
            fields[name] = FieldArrays(ids.ravel(), np.full(shape.rows, length, dtype=np.int32))
        return MicroBatch(np.full(shape.rows, -1, dtype=np.int64), fields)

    def dummy(self, special: SpecialIds) -> MicroBatch:
        """One pair of one token."""
        field = FieldArrays(np.array([special.eos], dtype=np.int32), np.array([1], dtype=np.int32))
        return MicroBatch(np.array([-1], dtype=np.int64), {SOURCE: field, TARGET: field})


def lengths_of(fields: Mapping[str, FieldArrays]) -> Int32Array:
    """The lengths of all fields: [pairs, fields]."""
    return np.stack([field.lengths for field in fields.values()], axis=1)


def _sampled(settings: DataSettings) -> dict[str, int]:
    """The fields whose segmentations are sampled, each with its longest allowed length."""
    data, sampling = settings.data, settings.tokenizer.sampling
    assert isinstance(data, PairDataConfig)
    if not sampling.alpha:
        return {}
    limits = {SOURCE: data.max_source_length, TARGET: data.max_target_length}
    wanted = {"both": (SOURCE, TARGET), "source": (SOURCE,), "target": (TARGET,)}[sampling.sides]
    budget = settings.batching.max_tokens_per_micro_batch
    return {field: min(limits[field], budget) for field in wanted}


def _longest(manifest: Manifest, settings: DataSettings) -> dict[str, int]:
    """The longest sequence of each field; subword sampling may lengthen one to its limit."""
    longest, sampled = manifest.longest(), _sampled(settings)
    return {field: max(length, sampled.get(field, 0)) for field, length in longest.items()}


def _shortest(manifest: Manifest) -> int:
    """A lower bound of the length of every pair's longer sequence."""
    histograms = [lengths for lengths in manifest.lengths.values() if isinstance(lengths, tuple)]
    return max(1, *(int(np.flatnonzero(counts)[0]) for counts in histograms))


TASK = TranslationData()
