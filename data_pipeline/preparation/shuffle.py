"""The global shuffle of a corpus that need not fit into memory.

    kept pairs ──key──▶ partitions on disk, by the key's top bits ──sort each──▶ shuffled pairs

A pair's key is a hash of its position, or of its sentences if duplicates are to be dropped: equal
pairs then meet in one partition. Sorting by key is a shuffle; it depends neither on the order in
which partitions were filled nor on how many processes filled them.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.arrays import Int64Array, UInt64Array
from data_pipeline.corpora.cleaning import DropReport
from data_pipeline.random_keys import CORPUS_SHUFFLE, splitmix64_at, stream_state

PARTITION_BITS = 10
PARTITIONS = 1 << PARTITION_BITS
BUFFERED_BYTES = 64_000_000
BYTES_PER_GROUP = 64_000_000  # a process takes several times as much
DUPLICATE = "duplicate"

# key, position, bytes of source and target; the sentences follow
_HEADER = struct.Struct("<QQII")


class Row(NamedTuple):
    """A kept pair, and the key and position that it is sorted by."""

    key: int
    position: int  # in its corpus
    source: str
    target: str


@dataclass(frozen=True)
class PackedRows:
    """Rows as bytes, in the order of their partitions."""

    data: bytes
    counts: Int64Array  # [PARTITIONS], rows
    sizes: Int64Array  # [PARTITIONS], bytes


def pack_rows(kept: list[tuple[int, str, str]], corpus: int, *, by_content: bool) -> PackedRows:
    """Gives pairs (position, source, target) of a corpus their keys and sorts them by partition."""
    texts = [(source.encode(), target.encode()) for _, source, target in kept]
    positions = np.array([position for position, _, _ in kept], dtype=np.int64)
    keys = _content_keys(texts) if by_content else _position_keys(corpus, positions)
    partitions = (keys >> np.uint64(64 - PARTITION_BITS)).astype(np.int64)
    sizes = np.zeros(PARTITIONS, dtype=np.int64)
    parts = []
    for index in np.argsort(partitions, kind="stable").tolist():
        source, target = texts[index]
        header = _HEADER.pack(int(keys[index]), kept[index][0], len(source), len(target))
        parts += [header, source, target]
        sizes[partitions[index]] += len(header) + len(source) + len(target)
    return PackedRows(b"".join(parts), np.bincount(partitions, minlength=PARTITIONS), sizes)


def _position_keys(corpus: int, positions: Int64Array) -> UInt64Array:
    return splitmix64_at(stream_state(CORPUS_SHUFFLE, corpus), positions.astype(np.uint64))


def _content_keys(texts: list[tuple[bytes, bytes]]) -> UInt64Array:
    digests = [
        hashlib.blake2b(source + b"\n" + target, digest_size=8).digest() for source, target in texts
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


class Partitions:
    """The partitions of one corpus on disk, written through a bounded buffer."""

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
    def pairs(self) -> int:
        return int(self.counts.sum())

    def paths(self, partitions: Iterable[int]) -> list[Path]:
        return [self._folder / f"{partition:04d}" for partition in partitions]

    def groups(self, pairs_per_group: int) -> list[list[Path]]:
        """Groups the files of consecutive partitions, so that a process can hold a group.

        No group is empty. It has about as many pairs as asked for, or fewer if they are very long.
        """
        loads = np.maximum(self.counts / pairs_per_group, self._sizes / BYTES_PER_GROUP)
        total = float(loads.sum())
        filled = np.flatnonzero(self.counts)
        # A partition belongs to the group in which its middle lies.
        middle = (np.cumsum(loads) - loads / 2)[filled]
        borders = np.flatnonzero(np.diff(middle * max(1, round(total)) // total)) + 1
        return [self.paths(group.tolist()) for group in np.split(filled, borders)]


def shuffled_rows(paths: Iterable[Path], *, by_content: bool, report: DropReport) -> Iterator[Row]:
    """The rows of partitions in their shuffled order, all but the first of equal ones dropped.

    Args:
        by_content: whether keys were made from the sentences; only then duplicates are dropped.
    """
    for path in paths:
        rows = _read_rows(path)
        yield from sorted(_first_of_equals(rows, report) if by_content else rows)


def _first_of_equals(rows: Iterable[Row], report: DropReport) -> Iterator[Row]:
    """The first of equal rows, in the order of positions, which is that of their file.

    Holds the sentences of different rows, and no more.
    """
    seen = set()
    for row in rows:
        content = (row.source, row.target)
        if content in seen:
            report.by_reason[DUPLICATE].add(row.position, row.source, row.target)
        else:
            seen.add(content)
            yield row


def _read_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            key, position, source_bytes, target_bytes = _HEADER.unpack(header)
            source, target = file.read(source_bytes), file.read(target_bytes)
            yield Row(key, position, source.decode(), target.decode())
