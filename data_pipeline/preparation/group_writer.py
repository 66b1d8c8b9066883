"""Shards of one group of a corpus's partitions: the unit of work of `transloom prepare`.

    partitions ──shuffle──▶ pairs ──tokenizer──▶ tokens ──none? too long?──▶ blocks ──▶ shards

A group depends on its own partitions alone. So any number of processes can write groups at the same
time, and the bytes are always the same.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, balanced_block
from data_pipeline.config import DataConfig
from data_pipeline.corpora.cleaning import EMPTY, DropReport
from data_pipeline.dataset.manifest import SOURCE, TARGET
from data_pipeline.dataset.shards import Block, pack_shard
from data_pipeline.preparation.shuffle import DUPLICATE, Row, shuffled_rows
from data_pipeline.storage.durable import write_durably
from data_pipeline.tokenizers.tokenizer import Tokenizer

SHARDS_PER_GROUP = 16
TOO_LONG = {SOURCE: "source_too_long", TARGET: "target_too_long"}


@dataclass(frozen=True)
class GroupJob:
    """What a process needs to write one group."""

    folder: Path  # for the shards
    corpus: str
    group: int
    partitions: list[Path]
    tokenizers: dict[str, bytes]  # serialised models by field
    tag: str | None
    data: DataConfig


@dataclass(frozen=True)
class WrittenShard:
    """A shard on the disk, still without its number in the dataset."""

    path: Path
    bytes: int
    sha256: str
    pairs: int
    tokens: dict[str, int]


@dataclass(frozen=True, eq=False)
class WrittenGroup:
    shards: list[WrittenShard]
    dropped: DropReport
    lengths: dict[str, Int64Array]  # by field: how many pairs have length 0, 1, 2, ...

    @property
    def pairs(self) -> int:
        return sum(shard.pairs for shard in self.shards)


def group_reasons(data: DataConfig) -> list[str]:
    """The reasons for which pairs may be dropped here."""
    return [EMPTY, *([DUPLICATE] if data.cleaning.drop_duplicates else []), *TOO_LONG.values()]


def write_group(job: GroupJob) -> WrittenGroup:
    """Writes the shards of a group."""
    report = DropReport(group_reasons(job.data))
    by_content = job.data.cleaning.drop_duplicates
    rows = list(shuffled_rows(job.partitions, by_content=by_content, report=report))
    texts = {SOURCE: [row.source for row in rows], TARGET: [row.target for row in rows]}
    fields = {
        SOURCE: _open(job, SOURCE).encode_field(texts[SOURCE], job.tag),
        TARGET: _open(job, TARGET).encode_field(texts[TARGET]),
    }
    kept = _usable(rows, fields, job, report)
    fields = {name: field.take(kept) for name, field in fields.items()}
    texts = {name: [lines[pair] for pair in kept.tolist()] for name, lines in texts.items()}
    return WrittenGroup(
        shards=_write_shards(job, texts, fields),
        dropped=report,
        lengths={name: np.bincount(field.lengths) for name, field in fields.items()},
    )


def _open(job: GroupJob, field: str) -> Tokenizer:
    return Tokenizer(job.tokenizers[field], f"the tokenizer of {field}")


def _usable(
    rows: list[Row], fields: dict[str, FieldArrays], job: GroupJob, report: DropReport
) -> Int64Array:
    """The numbers of the pairs with tokens on both sides, and no more than allowed.

    The others are reported.
    """
    source, target = fields[SOURCE].lengths, fields[TARGET].lengths
    nothing = 2 if job.tag else 1  # tokens of an empty source: EOS, and the tag
    # Zero-width and control characters are text until SentencePiece's normalisation drops them.
    reasons = {
        EMPTY: (source == nothing) | (target == 1),
        TOO_LONG[SOURCE]: source > job.data.max_source_length,
        TOO_LONG[TARGET]: target > job.data.max_target_length,
    }
    kept = np.ones(len(rows), dtype=bool)
    for reason, applies in reasons.items():
        for pair in np.flatnonzero(kept & applies).tolist():
            row = rows[pair]
            report.by_reason[reason].add(row.position, row.source, row.target)
        kept &= ~applies
    return np.flatnonzero(kept)


def _write_shards(
    job: GroupJob, texts: dict[str, list[str]], fields: dict[str, FieldArrays]
) -> list[WrittenShard]:
    """Cuts the pairs into shards of nearly equal size."""
    pairs, per_block = len(texts[SOURCE]), job.data.pairs_per_block
    shards = -(-pairs // (per_block * job.data.blocks_per_shard))
    written = []
    for index in range(shards):
        part = balanced_block(index, shards, pairs)
        blocks = [
            _block(
                f"{job.corpus}-{job.group:04d}-{index:04d}-{count:04d}",
                texts,
                fields,
                start,
                min(start + per_block, part.stop),
            )
            for count, start in enumerate(range(part.start, part.stop, per_block))
        ]
        packed = pack_shard(blocks)
        path = job.folder / f"{job.corpus}-{job.group:04d}-{index:04d}.tar"
        tokens = {name: sum(len(b.fields[name].ids) for b in blocks) for name in fields}
        sha256 = write_durably(path, packed)
        written.append(WrittenShard(path, len(packed), sha256, len(part), tokens))
    return written


def _block(
    key: str, texts: dict[str, list[str]], fields: dict[str, FieldArrays], start: int, stop: int
) -> Block:
    return Block(
        key=key,
        texts={
            name: "".join(line + "\n" for line in lines[start:stop]).encode()
            for name, lines in texts.items()
        },
        fields={name: field.part(start, stop) for name, field in fields.items()},
    )
