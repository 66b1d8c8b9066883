"""Writer of the shards of one group of partitions of a corpus, the unit of parallel work.

    partitions ──shuffle──▶ examples ──tokenizers──▶ tokens ──rules──▶ blocks ──▶ shards

The shards of a group depend only on its partitions. Any number of processes can therefore write
groups at the same time, and the bytes are always the same.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, balanced_block
from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.config.data import DataSettings
from data_pipeline.corpora.cleaning import Dropped, DropReport
from data_pipeline.dataset.lengths import Lengths, count_lengths
from data_pipeline.dataset.manifest_header import FieldInfo
from data_pipeline.dataset.shards import ShardBlock, pack_shard
from data_pipeline.dataset.texts import pack_texts
from data_pipeline.preparation.shuffle import DUPLICATE, Row, shuffled_rows
from data_pipeline.storage.regular_files import write_durably
from data_pipeline.tokenizers.tokenizer import Tokenizer, open_tokenizer

SHARDS_PER_GROUP = 16


@dataclass(frozen=True)
class GroupJob:
    """Input of the process that writes one group."""

    settings: DataSettings  # must come first: unpickling it loads the extensions
    folder: Path  # destination of the shards
    corpus: int
    group: int
    partitions: list[Path]
    tokenizers: dict[str, bytes]  # serialised models, by field
    tokenizer_kind: str | None

    @property
    def corpus_name(self) -> str:
        return self.settings.data.corpus_names[self.corpus]

    @property
    def fields(self) -> tuple[FieldInfo, ...]:
        return DATA_TASKS[self.settings.task].fields(self.settings.data)

    @property
    def tags(self) -> dict[str, str]:
        return self.settings.data.train[self.corpus].tags


@dataclass(frozen=True)
class WrittenShard:
    """Shard on disk, not yet numbered within the dataset."""

    path: Path
    bytes: int
    sha256: str
    pairs: int
    tokens: dict[str, int]


@dataclass(frozen=True, eq=False)
class WrittenGroup:
    shards: list[WrittenShard]
    dropped: DropReport
    lengths: dict[str, Lengths]  # by field

    @property
    def pairs(self) -> int:
        return sum(shard.pairs for shard in self.shards)


def write_group(job: GroupJob) -> WrittenGroup:
    """Write the shards of a group."""
    task, by_content = DATA_TASKS[job.settings.task], job.settings.data.cleaning.drop_duplicates
    report = DropReport([DUPLICATE] if by_content else [])
    rows = list(
        shuffled_rows(job.partitions, len(job.fields), by_content=by_content, report=report)
    )
    texts = {
        field.name: [row.texts[number] for row in rows] for number, field in enumerate(job.fields)
    }
    tokenizers = {field.name: _open(job, field) for field in job.fields}
    fields = task.encode_all(job.fields, tokenizers, texts, job.tags)
    kept = _usable(rows, fields, job, report)
    fields = {name: field.take(kept) for name, field in fields.items()}
    texts = {name: [lines[number] for number in kept.tolist()] for name, lines in texts.items()}
    return WrittenGroup(
        shards=_write_shards(job, texts, fields),
        dropped=report,
        lengths={
            field.name: count_lengths(field, fields[field.name].lengths) for field in job.fields
        },
    )


def _open(job: GroupJob, field: FieldInfo) -> Tokenizer:
    name = f"the tokenizer of {field.name}"
    place = job.fields.index(field)
    return open_tokenizer(job.tokenizers[field.name], name, job.tokenizer_kind).of_field(place)


def _usable(
    rows: list[Row], fields: dict[str, FieldArrays], job: GroupJob, report: DropReport
) -> Int64Array:
    """Return the indices of the examples that no rule on tokens drops, and report the others."""
    lengths = {name: field.lengths.astype(np.int64) for name, field in fields.items()}
    drops = DATA_TASKS[job.settings.task].drops(lengths, job.settings.data, job.tags)
    kept = np.ones(len(rows), dtype=bool)
    for reason, applies in drops.items():
        dropped = report.by_reason.setdefault(reason, Dropped())
        for number in np.flatnonzero(kept & applies).tolist():
            dropped.add(rows[number].position, rows[number].texts)
        kept &= ~applies
    return np.flatnonzero(kept)


def _write_shards(
    job: GroupJob, texts: dict[str, list[str]], fields: dict[str, FieldArrays]
) -> list[WrittenShard]:
    """Cut the examples into shards of nearly equal size, and write them."""
    data = job.settings.data
    examples, per_block = len(texts[job.fields[0].name]), data.pairs_per_block
    shards = -(-examples // (per_block * data.blocks_per_shard))
    written = []
    for index in range(shards):
        part = balanced_block(index, shards, examples)
        name = f"{job.corpus_name}-{job.group:04d}-{index:04d}"
        bounds = [*range(part.start, part.stop, per_block), part.stop]
        blocks = [
            ShardBlock(
                key=f"{name}-{count:04d}",
                texts={f.name: pack_texts(texts[f.name][start:stop], f) for f in job.fields},
                fields={f: arrays.part(start, stop) for f, arrays in fields.items()},
            )
            for count, (start, stop) in enumerate(pairwise(bounds))
        ]
        packed = pack_shard(blocks)
        path = job.folder / f"{name}.tar"
        tokens = {field: sum(len(b.fields[field].ids) for b in blocks) for field in fields}
        sha256 = write_durably(path, packed)
        written.append(WrittenShard(path, len(packed), sha256, len(part), tokens))
    return written
