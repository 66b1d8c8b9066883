"""Language modelling: documents of one field, packed into rows of a fixed context.

A document is stored as BOS, its tokens, EOS. Every token after BOS is predicted once in a pass. A
part of a document contains the tokens to predict and the token before them, from which the first is
predicted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_pipeline.arrays import BoolArray, FieldArrays, Int32Array, Int64Array
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.packing import plan_packed, plan_packed_heldout
from data_pipeline.batching.plan import WindowPlan
from data_pipeline.batching.task import DataTask, HeldOut, MicroBatchShape
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import DataConfig, DataSettings, PackedBatchingConfig
from data_pipeline.config.text import TEXT, TextCorpusConfig, TextDataConfig
from data_pipeline.corpora.cleaning import EMPTY, Rule, text_rules
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import FieldInfo, ManifestHeader, SpecialIds
from data_pipeline.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class RowsShape(MicroBatchShape):
    """Padded size of a micro-batch of packed documents; `length` counts predicted tokens."""

    length: int

    def __str__(self) -> str:
        return f"{self.rows} × {self.length} tokens"


class CausalLanguageModelData(DataTask):
    """Data side of language modelling, in numpy; the torch side is in `trainer.tasks.causal_lm`.

    Attributes:
        before: number of tokens that each part of a text contains before its first token to
            predict.
        fills: whether parts are cut again to fill rows.
    """

    before: ClassVar[int] = 1
    fills: ClassVar[bool] = True

    def fields(self, data: DataConfig) -> tuple[FieldInfo, ...]:
        assert isinstance(data, TextDataConfig)
        return (FieldInfo(name=TEXT, role="document", language=data.language),)

    def encode(
        self, field: FieldInfo, tokenizer: Tokenizer, texts: list[str], tag: str | None
    ) -> FieldArrays:
        return tokenizer.encode_field(texts, tag).with_first(tokenizer.bos_id)

    def rules(self, data: DataConfig, corpus: CorpusConfig) -> list[Rule]:
        assert isinstance(data, TextDataConfig)
        assert isinstance(corpus, TextCorpusConfig)
        return text_rules(data.cleaning, corpus)

    def fewest_tokens(self, field: FieldInfo, tag: str | None) -> int | None:
        """Return the length of the shortest document: BOS, a token and EOS."""
        return 3

    def drops(
        self, lengths: Mapping[str, Int64Array], data: DataConfig, tags: Mapping[str, str]
    ) -> dict[str, BoolArray]:
        return {EMPTY: lengths[TEXT] <= 2}  # BOS and EOS

    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        """Accept every dataset, because any document can be cut to any context length."""

    def planned_lengths(self, lengths: Int32Array, context_length: int) -> Int32Array:
        """Return how many tokens of each text are divided into rows: [texts].

        Args:
            lengths: [texts], in tokens.
        """
        return lengths - np.int32(self.before)

    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        batching = settings.batching_as(PackedBatchingConfig)
        return plan_packed(
            self.planned_lengths(fields[TEXT].lengths, batching.context_length),
            batching.context_length,
            batching.max_tokens_per_micro_batch,
            seed=settings.seed,
            epoch=epoch,
            window=window,
            before=self.before,
            fills=self.fills,
        )

    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        fields = self.heldout_fields(heldout, tokenizers, settings)
        return self.packed_heldout(np.arange(len(heldout)), fields, settings)

    def heldout_fields(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> dict[str, FieldArrays]:
        """Return the fields of micro-batches for a held-out set, in the order of its examples."""
        tokenizer = tokenizers[TEXT]
        return {TEXT: tokenizer.encode_field(heldout.texts[TEXT]).with_first(tokenizer.bos_id)}

    def packed_heldout(
        self, numbers: Int64Array, fields: Mapping[str, FieldArrays], settings: DataSettings
    ) -> list[MicroBatch]:
        """Pack texts of a held-out set into rows.

        Args:
            numbers: [texts], number of each text in the set.
        """
        batching = settings.batching_as(PackedBatchingConfig)
        plan = plan_packed_heldout(
            self.planned_lengths(fields[TEXT].lengths, batching.context_length),
            batching.context_length,
            batching.max_tokens_per_micro_batch,
            self.before,
        )
        return assemble(numbers, fields, plan)

    def units(self, micro_batch: MicroBatch) -> int:
        return micro_batch.tokens(TEXT) - len(micro_batch.pair_ids)

    def widest(self, manifest: ManifestHeader, settings: DataSettings) -> list[RowsShape]:
        batching = settings.batching_as(PackedBatchingConfig)
        length = batching.context_length
        return [RowsShape(batching.max_tokens_per_micro_batch // length, length)]

    def synthetic(self, shape: RowsShape, special: SpecialIds) -> MicroBatch:
        # Rows of two or more tokens get two parts each, because only rows with several parts need
        # an attention mask.
        parts = [shape.length // 2, shape.length - shape.length // 2]
        sizes = np.array([size for size in parts if size] * shape.rows, dtype=np.int32)
        lengths = sizes + np.int32(self.before)
        ids = np.full(int(lengths.sum()), special.eos, dtype=np.int32)
        return MicroBatch(
            np.full(len(sizes), -1, dtype=np.int64),
            {TEXT: FieldArrays(ids, lengths)},
            starts=np.zeros(len(sizes), dtype=np.int64),
            rows=np.repeat(np.arange(shape.rows), len(sizes) // shape.rows).astype(np.int32),
        )

    def dummy(self, special: SpecialIds) -> MicroBatch:
        """Return a micro-batch of one document of one token."""
        ids = np.array([special.bos, special.eos], dtype=np.int32)
        return MicroBatch(
            np.array([-1], dtype=np.int64),
            {TEXT: FieldArrays(ids, np.array([2], dtype=np.int32))},
            starts=np.array([0], dtype=np.int64),
            rows=np.array([0], dtype=np.int32),
        )


TASK = CausalLanguageModelData()
