"""Translation: pairs of a source and a target sentence, batched by length.

Each pair has a separate row, and a micro-batch has pairs of similar length to limit padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import FieldArrays, Int32Array, Int64Array
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.plan import (
    WindowPlan,
    check_budget,
    cut,
    longest_field,
    plan_window,
    sort_by_length,
)
from data_pipeline.batching.task import HeldOut, MicroBatchShape
from data_pipeline.config.data import DataSettings
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import ManifestHeader, SpecialIds
from data_pipeline.tasks.pairs import PairsData, longest_sequences
from data_pipeline.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class PairShape(MicroBatchShape):
    """Padded size of a micro-batch of pairs; lengths are in tokens, EOS included."""

    source_length: int
    target_length: int

    def __str__(self) -> str:
        return f"{self.rows} × ({self.source_length} source + {self.target_length} target) tokens"


def heldout_pairs(sources: list[str], targets: list[str], tag: str | None = None) -> HeldOut:
    """Return sentences to translate or to score.

    Args:
        targets: references, or required beginnings of the translations.
        tag: the piece put before every source sentence, or None.
    """
    return HeldOut({SOURCE: sources, TARGET: targets}, {} if tag is None else {SOURCE: tag})


def pair_micro_batches(
    heldout: HeldOut,
    tokenizers: Mapping[str, Tokenizer],
    budget: int,
    budget_of_squares: int | None = None,
) -> list[MicroBatch]:
    """Sort pairs by length and cut them into micro-batches by the budget; no pair is dropped.

    Args:
        budget: as in `plan_window`; a single pair that exceeds it becomes a separate batch.
        budget_of_squares: maximum of a batch's pairs × (its longest sequence)², the size of its
            attention scores; None for no second limit.
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
    """Sort pairs by length and cut them by the budget, shortest first, without shuffling.

    Held-out pairs are never dropped, so a single pair that exceeds the budget becomes a separate
    batch.

    Args:
        lengths: [pairs, fields], in tokens, EOS included.
        budget_of_squares: see `pair_micro_batches`.
    """
    order = sort_by_length(lengths)
    longest = longest_field(lengths[order])
    if budget_of_squares is not None:
        # Replace each length by a longer one, for which `budget` allows exactly the number of rows
        # that `budget_of_squares` allows for the real length.
        longest = np.maximum(longest, -(-(longest**2) * budget // budget_of_squares))
    return WindowPlan(order, cut(longest, budget))


class TranslationData(PairsData):
    """Data side of translation, in numpy; the torch side is in `trainer.tasks.translation`."""

    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        longest = np.array([list(manifest.longest().values())])
        check_budget(longest, settings.batching.max_tokens_per_micro_batch)

    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        budget = settings.batching.max_tokens_per_micro_batch
        return plan_window(lengths_of(fields), budget, settings.seed, epoch, window)

    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        budget = settings.batching.max_tokens_per_micro_batch
        return pair_micro_batches(heldout, tokenizers, budget)

    def units(self, micro_batch: MicroBatch) -> int:
        return micro_batch.tokens(TARGET)

    def widest(self, manifest: ManifestHeader, settings: DataSettings) -> list[PairShape]:
        """Return the shapes with the longest pairs, the most tokens, and the most attention scores.

        A micro-batch's longest sequence limits its number of rows and the lengths of both sides.
        Each shape is a maximum over all possible lengths of that sequence. Memory for attention
        scores grows with the square of the lengths, and most other memory with the padded tokens.
        By either measure, no micro-batch is larger than the largest of the shapes.
        """
        longest = longest_sequences(manifest, settings)
        lengths = np.arange(_shortest(manifest), max(longest.values()) + 1)
        budget = settings.batching.max_tokens_per_micro_batch
        # A window has at most an epoch's pairs.
        rows = np.minimum(budget // lengths, manifest.pairs)
        source, target = (np.minimum(lengths, longest[field]) for field in (SOURCE, TARGET))
        tokens = rows * (source + target)
        scores = rows * (source**2 + source * target + target**2)
        widest = dict.fromkeys([len(lengths) - 1, int(tokens.argmax()), int(scores.argmax())])
        return [PairShape(int(rows[i]), int(source[i]), int(target[i])) for i in widest]

    def synthetic(self, shape: PairShape, special: SpecialIds) -> MicroBatch:
        """Return a micro-batch of the shape, without padding, that repeats an ordinary token."""
        taken = {special.pad, special.bos, special.eos}
        token = next(number for number in range(len(taken) + 1) if number not in taken)
        fields = {}
        for name, length in ((SOURCE, shape.source_length), (TARGET, shape.target_length)):
            ids = np.full((shape.rows, length), token, dtype=np.int32)
            ids[:, -1] = special.eos
            fields[name] = FieldArrays(ids.ravel(), np.full(shape.rows, length, dtype=np.int32))
        return MicroBatch(np.full(shape.rows, -1, dtype=np.int64), fields)

    def dummy(self, special: SpecialIds) -> MicroBatch:
        """Return a micro-batch of one pair of one token."""
        return self.synthetic(PairShape(1, 1, 1), special)


def lengths_of(fields: Mapping[str, FieldArrays]) -> Int32Array:
    """Return the lengths of all fields: [pairs, fields]."""
    return np.stack([field.lengths for field in fields.values()], axis=1)


def _shortest(manifest: ManifestHeader) -> int:
    """Return a lower bound of the length of each pair's longest sequence."""
    histograms = [lengths for lengths in manifest.lengths.values() if isinstance(lengths, tuple)]
    return max(1, *(int(np.flatnonzero(counts)[0]) for counts in histograms))


TASK = TranslationData()
