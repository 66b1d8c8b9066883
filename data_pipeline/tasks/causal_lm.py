"""Language modelling: documents of one field, packed into rows of a fixed context.

A document is stored as BOS, its tokens, EOS. Every token after BOS is predicted once in a pass. A
part of a document contains the tokens to predict and the token before them, from which the first is
predicted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import BoolArray, FieldArrays, Int64Array
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.packing import plan_packed, plan_packed_heldout
from data_pipeline.batching.plan import WindowPlan
from data_pipeline.batching.task import DataTask, HeldOut, MicroBatchShape
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import DataConfig, DataSettings, PackedBatchingConfig
from data_pipeline.config.text import TEXT, TextCorpusConfig, TextDataConfig
from data_pipeline.corpora.cleaning import EMPTY, Rule, text_rules
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import ManifestHeader
from data_pipeline.dataset.manifest_records import FieldInfo, SpecialIds
from data_pipeline.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class RowsShape(MicroBatchShape):
    """Padded size of a micro-batch of packed documents; `length` counts predicted tokens."""

    length: int

    def __str__(self) -> str:
        return f"{self.rows} × {self.length} tokens"


class CausalLanguageModelData(DataTask):
    """Data side of language modelling, in numpy; the torch side is in `trainer.tasks.causal_lm`."""

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

    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        batching = _batching(settings)
        return plan_packed(
            fields[TEXT].lengths - 1,
            batching.context_length,
            batching.max_tokens_per_micro_batch,
            seed=settings.seed,
            epoch=epoch,
            window=window,
        )

    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        batching, tokenizer = _batching(settings), tokenizers[TEXT]
        field = tokenizer.encode_field(heldout.texts[TEXT]).with_first(tokenizer.bos_id)
        plan = plan_packed_heldout(
            field.lengths - 1, batching.context_length, batching.max_tokens_per_micro_batch
        )
        return assemble(np.arange(len(heldout)), {TEXT: field}, plan)

    def units(self, micro_batch: MicroBatch) -> int:
        return micro_batch.tokens(TEXT) - len(micro_batch.pair_ids)

    def widest(self, manifest: ManifestHeader, settings: DataSettings) -> list[RowsShape]:
        batching = _batching(settings)
        length = batching.context_length
        return [RowsShape(batching.max_tokens_per_micro_batch // length, length)]

    def synthetic(self, shape: RowsShape, special: SpecialIds) -> MicroBatch:
        # Rows of two or more tokens get two parts each, because only rows with several parts need
        # an attention mask.
        parts = [shape.length // 2, shape.length - shape.length // 2]
        sizes = np.array([size for size in parts if size] * shape.rows)
        return MicroBatch(
            np.full(len(sizes), -1, dtype=np.int64),
            {
                TEXT: FieldArrays(
                    np.full(int(sizes.sum()) + len(sizes), special.eos, dtype=np.int32),
                    (sizes + 1).astype(np.int32),
                )
            },
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


def _batching(settings: DataSettings) -> PackedBatchingConfig:
    assert isinstance(settings.batching, PackedBatchingConfig)
    return settings.batching


TASK = CausalLanguageModelData()
