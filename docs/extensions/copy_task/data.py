"""The copy task in numpy: a line is a row; each pass hides a tenth of its tokens anew."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import BoolArray, FieldArrays, Int64Array
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
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.config.text import TEXT
from data_pipeline.corpora.cleaning import Rule
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import FieldInfo, ManifestHeader, SpecialIds
from data_pipeline.random_keys import splitmix64
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.section import identity
from model.config.transformer import NetworkConfig

HIDDEN = "hidden"  # the field that this task makes of TEXT
HIDING = 1_000  # first word of its seeds; transloom's own uses are below 1,000
ONE_IN = 10


class CopyNetworkConfig(NetworkConfig):
    """The section `model` of the copy task."""

    network: str = identity("copy", "Which network.")
    width: int = identity(16, "Width of its only layer.", gt=0)


@dataclass(frozen=True)
class LinesShape(MicroBatchShape):
    """So many lines of so many tokens."""

    length: int


class CopyData(DataTask):
    """What preparing, data workers and planning know of the task."""

    def fields(self, data: DataConfig) -> tuple[FieldInfo, ...]:
        return (FieldInfo(name=TEXT, role="document", language="und"),)

    def rules(self, data: DataConfig, corpus: CorpusConfig) -> list[Rule]:
        return []

    def drops(
        self, lengths: Mapping[str, Int64Array], data: DataConfig, tags: Mapping[str, str]
    ) -> dict[str, BoolArray]:
        return {"empty": lengths[TEXT] < 2}

    def realises(self, settings: DataSettings) -> bool:
        return True

    def realise(
        self, examples: Examples, settings: DataSettings, tokenizers: Mapping[str, Tokenizer]
    ) -> dict[str, FieldArrays]:
        """Hides tokens of each line: its own in each pass, wherever and by whomever it is read."""
        text = examples.fields[TEXT]
        seeds = examples.seeds(HIDING, settings.seed, field_number=0)
        draws = [
            splitmix64(int(seed), int(length))
            for seed, length in zip(seeds, text.lengths, strict=True)
        ]
        unknown = tokenizers[TEXT].unk_id
        hidden = np.where(np.concatenate(draws) % np.uint64(ONE_IN) == 0, unknown, text.ids)
        return {TEXT: text, HIDDEN: FieldArrays(hidden, text.lengths)}

    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        longest = np.array([[manifest.longest()[TEXT]]])
        check_budget(longest, settings.batching.max_tokens_per_micro_batch)

    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        budget = settings.batching.max_tokens_per_micro_batch
        return plan_window(fields[TEXT].lengths[:, None], budget, settings.seed, epoch, window)

    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        text = tokenizers[TEXT].encode_field(heldout.texts[TEXT])
        lengths = text.lengths[:, None]
        order = sort_by_length(lengths)
        bounds = cut(longest_field(lengths[order]), settings.batching.max_tokens_per_micro_batch)
        fields = {TEXT: text, HIDDEN: text}
        return assemble(np.arange(len(heldout)), fields, WindowPlan(order, bounds))

    def units(self, micro_batch: MicroBatch) -> int:
        return micro_batch.tokens(TEXT)

    def widest(self, manifest: ManifestHeader, settings: DataSettings) -> list[LinesShape]:
        longest = manifest.longest()[TEXT]
        return [LinesShape(settings.batching.max_tokens_per_micro_batch // longest, longest)]

    def synthetic(self, shape: LinesShape, special: SpecialIds) -> MicroBatch:
        lengths = np.full(shape.rows, shape.length, dtype=np.int32)
        field = FieldArrays(np.full(int(lengths.sum()), special.eos, dtype=np.int32), lengths)
        return MicroBatch(np.full(shape.rows, -1), {TEXT: field, HIDDEN: field})

    def dummy(self, special: SpecialIds) -> MicroBatch:
        return self.synthetic(LinesShape(1, 1), special)


COPY = CopyData()
