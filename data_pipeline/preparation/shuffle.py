"""Global shuffle of a corpus that may not fit into memory.

    kept ──key──▶ partitions on disk, by the key's top bits ──sort each──▶ shuffled examples

An example's key is a hash of its position. If duplicates are to be dropped, it is a hash of the
example's texts, so that equal examples are in the same partition. Sorting by key shuffles the
examples. The result depends neither on the order in which partitions were filled nor on the number
of processes that filled them.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.arrays import Int64Array, UInt64Array
from data_pipeline.corpora.cleaning import DropReport, NumberedExample
from data_pipeline.random_keys import CORPUS_SHUFFLE, splitmix64_at, stream_state

PARTITION_BITS = 10
PARTITIONS = 1 << PARTITION_BITS
BUFFERED_BYTES = 64_000_000
BYTES_PER_GROUP = 64_000_000  # a process needs several times as much memory
DUPLICATE = "duplicate"


class Row(NamedTuple):
    """Kept example, with its sort key and position."""

    key: int
    position: int  # position in the corpus, from 0
    texts: tuple[str, ...]


@dataclass(frozen=True)
class PackedRows:
    """Rows as bytes, in the order of their partitions."""

    data: bytes
    counts: Int64Array  # [PARTITIONS], number of rows
    sizes: Int64Array  # [PARTITIONS], number of bytes


def pack_rows(kept: Sequence[NumberedExample], corpus: int, *, by_content: bool) -> PackedRows:
    """Assign keys to examples of a corpus and sort them by partition."""
    texts = [tuple([text.encode() for text in example.texts]) for example in kept]
    positions = np.array([example.position for example in kept], dtype=np.int64)
    keys = _content_keys(texts) if by_content else _position_keys(corpus, positions)
    partitions = (keys >> np.uint64(64 - PARTITION_BITS)).astype(np.int64)
    sizes = np.zeros(PARTITIONS, dtype=np.int64)
    parts: list[bytes] = []
    header = _header(len(texts[0])) if texts else None
    for index in np.argsort(partitions, kind="stable").tolist():
        assert header is not None
        lengths = [len(text) for text in texts[index]]
        parts.append(header.pack(int(keys[index]), kept[index].position, *lengths))
        parts += texts[index]
        sizes[partitions[index]] += header.size + sum(lengths)
    return PackedRows(b"".join(parts), np.bincount(partitions, minlength=PARTITIONS), sizes)


def _position_keys(corpus: int, positions: Int64Array) -> UInt64Array:
    return splitmix64_at(stream_state(CORPUS_SHUFFLE, corpus), positions.astype(np.uint64))


def _header(fields: int) -> struct.Struct:
    """Return the layout of a row's header: key, position, and the number of bytes of each text."""
    return struct.Struct(f"<QQ{fields}I")


def _content_keys(texts: list[tuple[bytes, ...]]) -> UInt64Array:
    digests = [hashlib.blake2b(b"\n".join(parts), digest_size=8).digest() for parts in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


class Partitions:
    """Partitions of one corpus on disk, written through a bounded buffer."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._buffers: list[list[memoryview]] = [[] for _ in range(PARTITIONS)]
        self._buffered = 0
        self._sizes = np.zeros(PARTITIONS, dtype=np.int64)
        self.counts = np.zeros(PARTITIONS, dtype=np.int64)

    def add(self, rows: PackedRows) -> None:
        view = memoryview(rows.data)
        bounds = accumulate(rows.sizes.tolist(), initial=0)
        for partition, (start, stop) in enumerate(pairwise(bounds)):
            if start < stop:
                self._buffers[partition].append(view[start:stop])
        self.counts += rows.counts
        self._sizes += rows.sizes
        self._buffered += len(view)
        if self._buffered > BUFFERED_BYTES:
            self.flush()

    def flush(self) -> None:
        for path, buffer in zip(self.paths(range(PARTITIONS)), self._buffers, strict=True):
            if buffer:
                with path.open("ab") as file:
                    file.writelines(buffer)
                buffer.clear()
        self._buffered = 0

    @property
    def examples(self) -> int:
        return int(self.counts.sum())

    def paths(self, partitions: Iterable[int]) -> list[Path]:
        return [self._folder / f"{partition:04d}" for partition in partitions]

    def groups(self, examples_per_group: int) -> list[list[Path]]:
        """Group the files of consecutive partitions, so that a group fits into a process's memory.

        No group is empty. A group has about `examples_per_group` examples, or fewer if they are
        very long.
        """
        loads = np.maximum(self.counts / examples_per_group, self._sizes / BYTES_PER_GROUP)
        total = float(loads.sum())
        filled = np.flatnonzero(self.counts)
        # The total load is divided evenly among the groups. A partition belongs to the group that
        # contains the middle of its load.
        middle = (np.cumsum(loads) - loads / 2)[filled]
        borders = np.flatnonzero(np.diff(middle * max(1, round(total)) // total)) + 1
        return [self.paths(group.tolist()) for group in np.split(filled, borders)]


def shuffled_rows(
    paths: Iterable[Path], fields: int, *, by_content: bool, report: DropReport
) -> Iterator[Row]:
    """Yield the rows of partitions in shuffled order, and only one of several equal rows.

    Args:
        fields: number of texts of an example.
        by_content: whether the keys are hashes of texts; only then are duplicates dropped.
        report: receives the dropped duplicates.
    """
    for path in paths:
        rows = _read_rows(path, fields)
        yield from sorted(_first_of_equals(rows, report) if by_content else rows)


def _first_of_equals(rows: Iterable[Row], report: DropReport) -> Iterator[Row]:
    """Yield the rows except those whose texts equal the texts of an earlier row.

    The rows of a file are in the order of their positions in the corpus. Only the texts of distinct
    rows are kept in memory.
    """
    seen = set()
    for row in rows:
        if row.texts in seen:
            report.by_reason[DUPLICATE].add(row.position, row.texts)
        else:
            seen.add(row.texts)
            yield row


def _read_rows(path: Path, fields: int) -> Iterator[Row]:
    header = _header(fields)
    with path.open("rb") as file:
        while packed := file.read(header.size):
            key, position, *lengths = header.unpack(packed)
            texts = [file.read(length).decode() for length in lengths]
            yield Row(key, position, tuple(texts))
