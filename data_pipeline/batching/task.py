"""A task's half in plain numpy: what preparing, data workers and planning know of it.

    texts ──encode──▶ examples in shards ──realise──▶ what a pass trains on ──plan──▶ rows
        ──▶ micro-batches, each with its units

A task has no state: everything follows from its arguments. The other half, in torch, is
`trainer.tasks`. What depends on random keys is drawn in `realise` or `plan`, once, in the data
worker: never again in a rank, so that what a worker counts is what a rank computes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.arrays import BoolArray, FieldArrays, Int64Array, UInt64Array
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import WindowPlan
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.corpora.cleaning import Rule
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_records import CorpusInfo, FieldInfo, SpecialIds
from data_pipeline.dataset.sequences import SequenceRules
from data_pipeline.random_keys import example_seeds
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.built_in_tasks import BUILT_IN_TASKS
from foundation.registry import Registry


@dataclass(frozen=True, eq=False)
class Examples:
    """Consecutive examples of one corpus, as a shard has them.

    Attributes:
        numbers: [examples], in the manifest's order.
        pass_number: the passes over the corpus before this one.
        texts: of the fields in `DataTask.texts_read`.
    """

    numbers: Int64Array
    pass_number: int
    corpus: CorpusInfo
    fields: dict[str, FieldArrays]
    texts: dict[str, list[str]]

    def seeds(self, use: int, seed: int, field_number: int) -> UInt64Array:
        """A seed for each example, see `data_pipeline.random_keys.example_seeds`."""
        return example_seeds(use, seed, self.pass_number, field_number, self.numbers)


@dataclass(frozen=True)
class HeldOut:
    """Aligned texts that are scored and never trained on, by field."""

    texts: dict[str, list[str]]
    tags: Mapping[str, str]  # the piece before every text of a field, by field

    def __len__(self) -> int:
        return len(next(iter(self.texts.values())))


@dataclass(frozen=True)
class MicroBatchShape:
    """The padded size of a micro-batch; a task's own shapes add their lengths."""

    rows: int


class DataTask(ABC):
    """What is particular to a task until its micro-batches reach a rank."""

    @abstractmethod
    def fields(self, data: DataConfig) -> tuple[FieldInfo, ...]:
        """The fields that each example is stored with."""

    def encode(
        self, field: FieldInfo, tokenizer: Tokenizer, texts: list[str], tag: str | None
    ) -> FieldArrays:
        """The token ids of a field's texts, as shards have them: by default with EOS."""
        return tokenizer.encode_field(texts, tag)

    def encode_all(
        self,
        fields: Sequence[FieldInfo],
        tokenizers: Mapping[str, Tokenizer],
        texts: Mapping[str, list[str]],
        tags: Mapping[str, str],
    ) -> dict[str, FieldArrays]:
        """The token ids of examples, by field: by default each field for itself, by `encode`.

        Args:
            tokenizers, texts, tags: by field.
        """
        return {
            field.name: self.encode(
                field, tokenizers[field.name], texts[field.name], tags.get(field.name)
            )
            for field in fields
        }

    def own_pieces(self) -> tuple[str, ...]:
        """Pieces that the tokenizer of every field has to have, and no text contains, as tags."""
        return ()

    @abstractmethod
    def rules(self, data: DataConfig, corpus: CorpusConfig) -> Sequence[Rule]:
        """The rules on the text of a training corpus, in the order in which they are tried."""

    def fewest_tokens(self, field: FieldInfo, tag: str | None) -> int | None:
        """Tokens of the shortest sequence of a field that is kept: one text token with its EOS.

        None, the default, if its sequences may have other ids than those of a text, padding too.

        Args:
            tag: the piece before each text of the dataset's first field, if there is one.
        """
        return None

    @abstractmethod
    def drops(
        self, lengths: Mapping[str, Int64Array], data: DataConfig, tags: Mapping[str, str]
    ) -> dict[str, BoolArray]:
        """The examples that are dropped for their tokens: by reason, [examples].

        All reasons are there, in the order in which they are tried, also if nothing is dropped.

        Args:
            lengths: by field: [examples], in tokens.
        """

    def texts_read(self, settings: DataSettings) -> frozenset[str]:
        """The fields whose texts `realise` reads; reading them from a shard takes time."""
        return frozenset()

    def realises(self, settings: DataSettings) -> bool:
        """Whether `realise` does anything under this recipe."""
        return bool(self.texts_read(settings))

    def realise(
        self, examples: Examples, settings: DataSettings, tokenizers: Mapping[str, Tokenizer]
    ) -> dict[str, FieldArrays]:
        """What is trained on in this pass: by default the fields as they are stored.

        A task may make other fields of them, which its micro-batches then have.
        """
        return examples.fields

    @abstractmethod
    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        """Checks that the dataset can be batched under the recipe.

        Raises:
            BatchingError: an example does not fit into a micro-batch.
        """

    @abstractmethod
    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        """Cuts a window into micro-batches: a function of lengths, settings and coordinate."""

    def heldout_limits(self, data: DataConfig) -> Mapping[str, int]:
        """The most tokens of a held-out text, by field: by default any number.

        They guard memory, as held-out texts are never dropped.
        """
        return {}

    @abstractmethod
    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        """A held-out set, whole, in batches that depend on lengths and settings alone.

        `pair_ids` are the numbers of the set's examples, from 0.
        """

    @abstractmethod
    def units(self, micro_batch: MicroBatch) -> int:
        """What the loss is divided by: target tokens, masked tokens, examples."""

    @abstractmethod
    def widest(self, manifest: Manifest, settings: DataSettings) -> list[Any]:
        """The shapes (MicroBatchShape) of the largest micro-batches that a run can meet.

        For every micro-batch, one of them takes as much memory in a pass.
        """

    @abstractmethod
    def synthetic(self, shape: Any, special: SpecialIds) -> MicroBatch:
        """A micro-batch of a shape of `widest`, without padding."""

    @abstractmethod
    def dummy(self, special: SpecialIds) -> MicroBatch:
        """A constant, smallest micro-batch, for ranks that have a slot less than others."""


def rules_by_corpus(manifest: Manifest) -> list[dict[str, SequenceRules]]:
    """What the sequences of each corpus's shards have to keep to, by field."""
    known = manifest.task in DATA_TASKS  # an extension's may not be loaded
    task = DATA_TASKS[manifest.task] if known else None
    return [_rules(manifest, task, corpus) for corpus in manifest.corpora]


def _rules(
    manifest: Manifest, task: DataTask | None, corpus: CorpusInfo
) -> dict[str, SequenceRules]:
    special, longest = manifest.special_ids, manifest.longest()
    rules = {}
    for field in manifest.fields:
        size = field.label_ids or manifest.tokenizers[field.name].vocabulary_size
        fewest = task.fewest_tokens(field, corpus.tag) if task else None
        if fewest is None:
            rules[field.name] = SequenceRules(size, longest[field.name])
        else:
            rules[field.name] = SequenceRules(
                size, longest[field.name], fewest, special.pad, special.eos
            )
    return rules


DATA_TASKS = Registry[DataTask]("task", "task")
for _name, _task in BUILT_IN_TASKS.items():
    DATA_TASKS.register(_name, _task.data)
