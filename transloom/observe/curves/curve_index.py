"""Cache an index of a long metrics file (the record), so that its curves are not read again.

::

    metrics.jsonl ──▶ points of equal width (means, extremes), validations, events ──▶ NAME.curve

The first call reads all lines; later calls read only the lines that were appended since then.

A cache file is one line of JSON, typed and limited in size, followed by plain numbers. The cache is
a directory of mode 0700 that only its owner can change; any other directory is refused. The header
identifies the record. A record that was truncated, replaced or changed before the indexed end is
read again from its beginning.
"""

import hashlib
import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
from pydantic import Field

from data_pipeline.storage.regular_files import write_atomically
from foundation.file_model import Count, FileModel
from trainer.errors import TrainerError
from trainer.record.metrics_lines import Event, SkippedLine
from transloom.observe.curves.curve_points import COLUMNS, ROW, Points
from transloom.observe.curves.record_blocks import Lines, OpenRecord, ScoredStep

SUFFIX = ".curve"
# When an index has more points than this, the number of steps per point doubles. A point takes
# `8 * ROW` bytes.
MAX_POINTS = 2**14
# Maximum number of validations, and of events. A faulty record can therefore not fill the cache.
MAX_RARE = 20_000
MAX_HEADER_BYTES = 2**26
# Maximum total size of all cache files; the least recently written files are removed first.
MAX_CACHE_BYTES = 2**30
# Maximum number of parsed cache files that stay in memory, each of up to 3 MB.
MAX_KEPT = 4
# Number of bytes hashed at the start and at the end of the indexed part, to identify the record.
_SEAL_BYTES = 4096
# During the first indexing of a long record, the index is saved each time that this number of bytes
# has been read. A process that is killed therefore loses little work.
_SAVED_EVERY = 2**28

Mark = Annotated[Event, Field(discriminator="event")]


class IndexedPart(FileModel):
    """Part of a record that is indexed, from its first line to the position `indexed_bytes`.

    Attributes:
        width: number of steps that a point covers.
        left_out: number of validations and events beyond `MAX_RARE`, which the index lacks.
        validation_at: byte position and length in bytes of the last validation line.
    """

    indexed_bytes: Count = 0
    width: Annotated[int, Field(ge=1, le=2**50)] = 1
    validations: Annotated[list[ScoredStep], Field(max_length=MAX_RARE)] = Field(
        default_factory=list
    )
    events: Annotated[
        list[Annotated[Mark | SkippedLine, Field(union_mode="left_to_right")]],
        Field(max_length=MAX_RARE),
    ] = Field(default_factory=list)
    left_out: Count = 0
    damaged: Count = 0
    first_damage: str | None = None
    validation_at: tuple[Count, Count] | None = None


class _Header(IndexedPart):
    """First line of a cache file.

    Attributes:
        inode, head_sha256, tail_sha256: identify the record; see `_seal` for the hashes.
        columns: the columns of its points, in their order. An index with other columns, which an
            earlier version wrote, is built again.
    """

    version: Literal[4] = 4
    columns: tuple[str, ...] = COLUMNS
    inode: int
    head_sha256: str
    tail_sha256: str
    points: Annotated[int, Field(ge=0, le=MAX_POINTS)]
    points_sha256: str


# The most recently parsed cache files, by device, inode, modification time and size. They are kept
# because a page requests the same file several times.
_KEPT: dict[tuple[int, int, int, int], tuple[_Header, Points]] = {}
_KEEPING = threading.Lock()


@dataclass
class CurveIndex:
    """Index of a record.

    Attributes:
        part: what was indexed, except the points.
        file_bytes: the number of bytes read from the index's cache file; 0 if none was read.
    """

    part: IndexedPart = field(default_factory=IndexedPart)
    points: Points = field(default_factory=Points.none)
    file_bytes: int = 0

    def add(self, lines: Lines, points: Points, end: int) -> None:
        """Add the record's next lines, up to the byte position `end`.

        Args:
            points: the points of the training lines.
        """
        part = self.part
        self.points = Points.joined([self.points, points])
        self.part = IndexedPart.model_construct(
            indexed_bytes=end,
            width=part.width,
            validations=[*part.validations, *lines.scored()],
            events=[*part.events, *lines.events],
            left_out=part.left_out,
            damaged=part.damaged + lines.damaged,
            first_damage=part.first_damage or lines.first_damage,
            validation_at=lines.validation_at or part.validation_at,
        )

    def limit(self) -> None:
        """Merge points and leave out validations and events, so that a cache file can hold them."""
        part, width = self.part, self.part.width
        self.points = self.points.by_width(width)
        while len(self.points) > MAX_POINTS:
            width *= 2
            self.points = self.points.by_width(width)
        more = max(0, len(part.validations) - MAX_RARE) + max(0, len(part.events) - MAX_RARE)
        changed = {
            "width": width,
            "validations": part.validations[:MAX_RARE],
            "events": part.events[:MAX_RARE],
            "left_out": part.left_out + more,
        }
        self.part = part.model_copy(update=changed)


def load_index(record: OpenRecord, cache: Path) -> CurveIndex | None:
    """Return the cached index of a record; None if no cached index matches the record."""
    with suppress(OSError, ValueError, TrainerError):
        _require_own(cache)
        with _open_own(cache / _name_of(record.path)) as file:
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            found = _KEPT.get(key)
            read = 0 if found else status.st_size
            header, points = found or _parsed(file.read(status.st_size))
        with _KEEPING:
            _KEPT[key] = header, points
            while len(_KEPT) > MAX_KEPT:
                del _KEPT[next(iter(_KEPT))]
        if (
            header.inode == record.inode
            and header.indexed_bytes <= record.end
            and _seal(record, header.indexed_bytes) == (header.head_sha256, header.tail_sha256)
        ):
            return CurveIndex(header, points, read)
    return None


def _parsed(data: bytes) -> tuple[_Header, Points]:
    """Parse a cache file.

    Raises:
        ValueError: the file is damaged.
    """
    head, _, body = data.partition(b"\n")
    header = _Header.model_validate_json(head)
    rows = np.frombuffer(body, "<f8")
    if header.columns != COLUMNS:
        raise ValueError(f"its columns are {header.columns}, expected {COLUMNS}")
    if hashlib.sha256(body).hexdigest() != header.points_sha256:
        raise ValueError("the sha256 of its points is not the one in its header")
    if rows.size != header.points * ROW:
        raise ValueError(f"it has {rows.size:,} numbers, expected {header.points * ROW:,}")
    return header, Points(rows.reshape(-1, ROW))


def extend_index(path: Path, cache: Path) -> CurveIndex:
    """Return a record's index, after adding new lines to the cached index or creating one.

    Args:
        path: the metrics file.
        cache: the directory of indexes.

    Raises:
        OSError: the record does not exist, or the cache cannot be written.
        TrainerError: other users can change the cache.
    """
    make_cache(cache)
    with OpenRecord(path) as record:
        index = load_index(record, cache) or CurveIndex()
        if record.end == index.part.indexed_bytes:
            return index
        saved = index.part.indexed_bytes
        for end, lines in record.chunks(index.part.indexed_bytes, record.end):
            index.add(lines, Points.of_lines(lines.train), end)
            index.limit()
            if end - saved > _SAVED_EVERY:
                _save(index, record, cache)
                saved = end
        _save(index, record, cache)
    return index


def make_cache(cache: Path) -> None:
    """Create the cache directory, with access for its owner only.

    Raises:
        OSError: the directory cannot be created.
        TrainerError: the directory exists, and other users can change it.
    """
    cache.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        cache.mkdir(mode=0o700)
    _require_own(cache)


def _require_own(folder: Path) -> None:
    status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not is_own or stat.S_IMODE(status.st_mode) & 0o077:
        raise TrainerError(
            f"{folder} cannot be the cache of curves: it has mode "
            f"{stat.S_IMODE(status.st_mode):o} and belongs to user {status.st_uid}, expected mode "
            "700 and your user. Remove the folder, or run chmod 700 on it"
        )


def _open_own(file: Path) -> BinaryIO:
    """Open a cache file; refuse links, files of other users, and files that are too large."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    opened = os.fdopen(os.open(file, flags), "rb")
    status = os.fstat(opened.fileno())
    most = MAX_HEADER_BYTES + MAX_POINTS * ROW * 8
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_size <= most:
        return opened
    opened.close()
    raise ValueError(f"{file} is not a regular file of this user with at most {most:,} bytes")


def _save(index: CurveIndex, record: OpenRecord, cache: Path) -> None:
    head, tail = _seal(record, index.part.indexed_bytes)
    body = index.points.rows.astype("<f8").tobytes()
    header = _Header(
        inode=record.inode,
        head_sha256=head,
        tail_sha256=tail,
        points=len(index.points),
        points_sha256=hashlib.sha256(body).hexdigest(),
        **{name: getattr(index.part, name) for name in IndexedPart.model_fields},
    )
    text = header.model_dump_json(exclude_none=True).encode()
    if len(text) <= MAX_HEADER_BYTES:
        _evict(cache, len(text) + len(body))
        write_atomically(cache / _name_of(record.path), text + b"\n" + body)


def _seal(record: OpenRecord, indexed_bytes: int) -> tuple[str, str]:
    """Return the sha256 of the first and of the last `_SEAL_BYTES` bytes of the indexed part."""
    ends = (
        record.read(0, min(_SEAL_BYTES, indexed_bytes)),
        record.read(max(0, indexed_bytes - _SEAL_BYTES), indexed_bytes),
    )
    first, last = (hashlib.sha256(data).hexdigest() for data in ends)
    return first, last


def _name_of(record: Path) -> str:
    return hashlib.sha256(os.fsencode(record.resolve())).hexdigest()[:32] + SUFFIX


def _evict(cache: Path, wanted: int) -> None:
    """Remove the oldest cache files until a new one of `wanted` bytes fits."""
    files = [(file.lstat(), file) for file in cache.glob(f"*{SUFFIX}")]
    used = sum(status.st_size for status, _ in files) + wanted
    for status, file in sorted(files, key=lambda pair: pair[0].st_mtime):
        if used <= MAX_CACHE_BYTES:
            return
        file.unlink(missing_ok=True)
        used -= status.st_size
