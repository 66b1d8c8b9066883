"""Data side of a task, in numpy: used by preparation, data workers and planning.

    texts ──encode──▶ examples in shards ──realise──▶ sequences of one pass ──plan──▶ rows
        ──▶ micro-batches, each with its number of loss units

A task has no state: all results follow from the arguments. The torch side of tasks is
`trainer.tasks`. Random choices are made once, in the data worker, by `realise` or `plan`. A rank
does not repeat them, so the ranks train on exactly the tokens whose loss units the worker counted.
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
from data_pipeline.dataset.manifest_header import CorpusInfo, FieldInfo, ManifestHeader, SpecialIds
from data_pipeline.dataset.sequences import SequenceRules
from data_pipeline.random_keys import example_seeds
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation import tasks
from foundation.registry import Registry


@dataclass(frozen=True, eq=False)
class Examples:
    """Consecutive examples of one corpus, as stored in a shard.

    Attributes:
        numbers: [examples], the examples' numbers in the manifest's order.
        pass_number: number of earlier passes over the corpus.
        texts: texts of the fields in `DataTask.texts_read`, by field.
    """

    numbers: Int64Array
    pass_number: int
    corpus: CorpusInfo
    fields: dict[str, FieldArrays]
    texts: dict[str, list[str]]

    def seeds(self, use: int, seed: int, field_number: int) -> UInt64Array:
        """Return a seed for each example; see `data_pipeline.random_keys.example_seeds`."""
        return example_seeds(use, seed, self.pass_number, field_number, self.numbers)


@dataclass(frozen=True)
class HeldOut:
    """Texts of a held-out set, by field; the n-th texts of all fields belong to one example."""

    texts: dict[str, list[str]]
    tags: Mapping[str, str]  # tag to put before every text, by field

    def __len__(self) -> int:
        return len(next(iter(self.texts.values())))


@dataclass(frozen=True)
class MicroBatchShape:
    """Padded size of a micro-batch; subclasses for tasks add sequence lengths."""

    rows: int


class DataTask(ABC):
    """Interface of a task's data side: its steps from text to the micro-batches of ranks."""

    @abstractmethod
    def fields(self, data: DataConfig) -> tuple[FieldInfo, ...]:
        """Return the fields that are stored for each example."""

    def encode(
        self, field: FieldInfo, tokenizer: Tokenizer, texts: list[str], tag: str | None
    ) -> FieldArrays:
        """Return the token ids of a field's texts, as stored in shards; by default, with EOS."""
        return tokenizer.encode_field(texts, tag)

    def encode_all(
        self,
        fields: Sequence[FieldInfo],
        tokenizers: Mapping[str, Tokenizer],
        texts: Mapping[str, list[str]],
        tags: Mapping[str, str],
    ) -> dict[str, FieldArrays]:
        """Return the token ids of examples, by field.

        By default `encode` handles each field independently.

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
        """Return special pieces that every field's tokenizer must have.

        Like tags, they are never pieces of ordinary text.
        """
        return ()

    @abstractmethod
    def rules(self, data: DataConfig, corpus: CorpusConfig) -> Sequence[Rule]:
        """Return the rules on the text of a training corpus, in the order in which they apply."""

    def fewest_tokens(self, field: FieldInfo, tag: str | None) -> int | None:
        """Return the minimum length of a field's sequences, such as one text token and EOS.

        Shorter sequences are never kept. By default, return None, which allows any sequence of ids,
        including padding ids and sequences without EOS.

        Args:
            tag: the piece before each text of the dataset's first field, or None if there is none.
        """
        return None

    @abstractmethod
    def drops(
        self, lengths: Mapping[str, Int64Array], data: DataConfig, tags: Mapping[str, str]
    ) -> dict[str, BoolArray]:
        """Return a mask, [examples], for each reason to drop an example because of its lengths.

        The result contains every reason, in the order in which the reasons are tried, even if
        nothing is dropped.

        Args:
            lengths: by field: [examples], in tokens.
        """

    def texts_read(self, settings: DataSettings) -> frozenset[str]:
        """Return the fields whose texts `realise` needs.

        Only these texts are read from shards, because reading them takes time.
        """
        return frozenset()

    def realises(self, settings: DataSettings) -> bool:
        """Return whether `realise` must be called under this recipe."""
        return bool(self.texts_read(settings))

    def realise(
        self, examples: Examples, settings: DataSettings, tokenizers: Mapping[str, Tokenizer]
    ) -> dict[str, FieldArrays]:
        """Return the sequences that this pass trains on; by default, the fields as stored.

        A task may derive other fields from the stored ones. Its micro-batches then have those
        fields instead.
        """
        return examples.fields

    @abstractmethod
    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        """Check that the dataset can be batched under the recipe; not called on ranks.

        Raises:
            BatchingError: an example does not fit into a micro-batch.
        """

    @abstractmethod
    def plan(
        self, fields: Mapping[str, FieldArrays], settings: DataSettings, epoch: int, window: int
    ) -> WindowPlan:
        """Plan a window's micro-batches: a pure function of lengths, settings, epoch and window."""

    def heldout_limits(self, data: DataConfig) -> Mapping[str, int]:
        """Return the maximum tokens of a held-out text, by field; by default, there is no limit.

        The limits protect memory, because held-out texts are not dropped however long they are.
        """
        return {}

    @abstractmethod
    def heldout_micro_batches(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> list[MicroBatch]:
        """Return a whole held-out set as micro-batches that depend only on lengths and settings.

        Their `pair_ids` are the indices of the set's examples, from 0.
        """

    @abstractmethod
    def units(self, micro_batch: MicroBatch) -> int:
        """Return the number of loss units, such as target tokens, masked tokens or examples.

        The loss of a step is divided by the units of all its micro-batches.
        """

    @abstractmethod
    def widest(self, manifest: ManifestHeader, settings: DataSettings) -> list[Any]:
        """Return the shapes (MicroBatchShape) of the largest micro-batches that a run can produce.

        No micro-batch needs more memory in a pass than the most expensive of these shapes.

        Args:
            manifest: the manifest without its shards, which ranks do not have.
        """

    @abstractmethod
    def synthetic(self, shape: Any, special: SpecialIds) -> MicroBatch:
        """Return a micro-batch without padding that has a shape returned by `widest`."""

    @abstractmethod
    def dummy(self, special: SpecialIds) -> MicroBatch:
        """Return a constant, minimal micro-batch for a rank with one slot fewer than others."""


def rules_by_corpus(manifest: ManifestHeader) -> list[dict[str, SequenceRules]]:
    """Return, for each corpus, the rules that its shards' sequences must satisfy, by field."""
    known = manifest.task in DATA_TASKS  # False if an extension with the task is not loaded
    task = DATA_TASKS[manifest.task] if known else None
    return [_rules(manifest, task, corpus) for corpus in manifest.corpora]


def _rules(
    manifest: ManifestHeader, task: DataTask | None, corpus: CorpusInfo
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


DATA_TASKS: Registry[DataTask] = tasks.DATA_TASKS
