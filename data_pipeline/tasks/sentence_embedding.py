"""Sentence embeddings: pairs with the same meaning, the same number of them in every micro-batch.

    src   BOS  A  man  rides  a  bike  EOS       one row
    tgt   BOS  Ein  Mann  fährt  Rad  EOS        one row; targets of other pairs are negatives

A sentence is compared only with the sentences of its micro-batch. Every micro-batch therefore has
the same number of pairs, for any number of ranks. Each pass omits the remaining pairs of a window,
which are different pairs in each pass. Held-out sets are cut into groups of GROUP pairs, in their
order.
"""

from collections.abc import Mapping

import numpy as np

from data_pipeline.arrays import BoolArray, FieldArrays, Int64Array
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.mixture import Mixture, shares_of
from data_pipeline.batching.plan import WindowPlan, plan_equal_numbers
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.config.embedding import BOS_TOKENS, EmbeddingBatchingConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import FieldInfo, ManifestHeader
from data_pipeline.errors import BatchingError
from data_pipeline.tasks.translation import PairShape, TranslationData, lengths_of
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.wording import counted

GROUP = 100  # pairs per held-out group; a sentence is compared only within its group


class SentenceEmbeddingData(TranslationData):
    """Data side of sentence embeddings: pairs as for translation, with BOS before each side."""

    def encode(
        self, field: FieldInfo, tokenizer: Tokenizer, texts: list[str], tag: str | None
    ) -> FieldArrays:
        return with_ends(tokenizer, texts)  # this task's recipes have no tags

    def fewest_tokens(self, field: FieldInfo, tag: str | None) -> int:
        return BOS_TOKENS + super().fewest_tokens(field, tag)

    def drops(
        self, lengths: Mapping[str, Int64Array], data: DataConfig, tags: Mapping[str, str]
    ) -> dict[str, BoolArray]:
        return super().drops({name: n - BOS_TOKENS for name, n in lengths.items()}, data, tags)

    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        batching = settings.batching_as(EmbeddingBatchingConfig)
        longest = max(manifest.longest().values())
        pairs, budget = batching.pairs_per_micro_batch, batching.max_tokens_per_micro_batch
        shares = shares_of(settings.data, [corpus.kept for corpus in manifest.corpora])
        mixture = Mixture(manifest.shard_pairs(), shares, batching.window_shards, settings.seed)
        # `of_window` is a lower bound of the largest window's pairs. If it were below `pairs`, an
        # epoch might have no micro-batch.
        of_window = sum(mixture.pairs_per_epoch) // mixture.windows_per_epoch
        if of_window < pairs:
            raise BatchingError(
                f"An epoch has {counted(mixture.windows_per_epoch, 'window')} of about "
                f"{counted(of_window, 'pair')}, which is too few for a micro-batch of {pairs:,}. "
                "Lower batching.pairs_per_micro_batch, or raise batching.window_shards."
            )
        if pairs * longest > budget:
            raise BatchingError(
                f"One side of {counted(pairs, 'pair')} of up to {longest} tokens may have "
                f"{pairs * longest:,} tokens, but a micro-batch may have at most {budget:,}. Raise "
                f"batching.max_tokens_per_micro_batch to {pairs * longest}, or lower "
                "batching.pairs_per_micro_batch."
            )

    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        pairs = settings.batching_as(EmbeddingBatchingConfig).pairs_per_micro_batch
        return plan_equal_numbers(lengths_of(fields), pairs, settings.seed, epoch, window)

    def heldout_limits(self, data: DataConfig) -> dict[str, int]:
        """Return no limits, because long held-out sentences are cut like any sentence to embed."""
        return {}

    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        """Return groups of GROUP pairs in the set's order, without the remainder.

        A set of fewer than GROUP pairs is one group.
        """
        longest = settings.batching_as(EmbeddingBatchingConfig).context_length
        fields = {
            name: cut_to(with_ends(tokenizers[name], texts), longest, tokenizers[name].eos_id)
            for name, texts in heldout.texts.items()
        }
        size = min(GROUP, len(heldout))
        whole = len(heldout) // size * size
        numbers = np.arange(whole, dtype=np.int64)
        return assemble(numbers, fields, WindowPlan(numbers, np.arange(0, whole + 1, size)))

    def units(self, micro_batch: MicroBatch) -> int:
        return len(micro_batch.pair_ids)

    def widest(self, manifest: ManifestHeader, settings: DataSettings) -> list[PairShape]:
        longest = manifest.longest()
        pairs = settings.batching_as(EmbeddingBatchingConfig).pairs_per_micro_batch
        return [PairShape(pairs, longest[SOURCE], longest[TARGET])]


def with_ends(tokenizer: Tokenizer, texts: list[str]) -> FieldArrays:
    """Encode sentences as the network reads them, with BOS and EOS."""
    return tokenizer.encode_field(texts).with_first(tokenizer.bos_id)


def cut_to(sentences: FieldArrays, longest: int, eos_id: int) -> FieldArrays:
    """Cut sentences to at most `longest` tokens, the last of which is EOS."""
    lengths = np.minimum(sentences.lengths, longest).astype(np.int64)
    cut = sentences.take_parts(np.arange(len(lengths)), np.zeros_like(lengths), lengths)
    cut.ids[np.cumsum(lengths) - 1] = eos_id
    return cut


TASK = SentenceEmbeddingData()
