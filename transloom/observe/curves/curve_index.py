"""What is kept of a long record, so that its curve need not be read again: exact, and small.

::

    metrics.jsonl, all lines once ──▶ points of equal widths, with means and extremes ─┐
    what is appended, later       ──▶ all validations and events                      ─┴▶ NAME.curve

A file of the cache is one line of JSON, typed and with its own limits, and then plain numbers. It
lies in a folder of mode 0700 that only its owner can change; one that is not so is not used. It
tells which record it is of: one that was cut or replaced, or is not as it was before the place up
to which it was read, is read anew.
"""

import hashlib
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
from pydantic import Field

from data_pipeline.storage.durable import write_atomically
from foundation.file_model import Count, FileModel
from trainer.errors import TrainerError
from trainer.record.metrics_lines import (
    Preempted,
    Repeated,
    ReplayMismatch,
    Resized,
    Resumed,
    SkippedLine,
)
from trainer.scores import Scores
from transloom.observe.curves.curve_points import ROW, Points
from transloom.observe.curves.record_blocks import Lines, OpenRecord

SUFFIX = ".curve"
# Twice as many steps share a point as soon as there are more; some 160 bytes each.
MAX_POINTS = 2**14
# Of rare lines, each kind; a run with more of them has other worries.
MAX_RARE = 20_000
MAX_HEADER_BYTES = 2**26
# All files of the cache; the longest unused go first.
MAX_CACHE_BYTES = 2**30
# Files of the cache that stay in memory; each has up to 3 MB.
MAX_KEPT = 4
# How much at both ends of what was read must be as it was.
_SEAL_BYTES = 4096
# A long record is kept now and then while it is read, so that a kill costs little.
_SAVED_EVERY = 2**28

Mark = Annotated[
    Resumed | Resized | Preempted | Repeated | ReplayMismatch, Field(discriminator="event")
]


class Validated(FileModel):
    """The scores of a validation, without its samples."""

    step: int
    scores: Scores


class _Header(FileModel):
    """The first line of a file of the cache.

    Attributes:
        inode, head_sha256, tail_sha256: which record it is of, see `_seal`.
        width: how many steps share a point.
        validation_at: where the last line of a validation begins and how long it is.
        left_out: rare lines beyond `MAX_RARE`.
    """

    version: Literal[2] = 2
    inode: int
    indexed_bytes: Count
    head_sha256: str
    tail_sha256: str
    width: Annotated[int, Field(ge=1, le=2**50)]
    points: Annotated[int, Field(ge=0, le=MAX_POINTS)]
    points_sha256: str
    validations: Annotated[list[Validated], Field(max_length=MAX_RARE)]
    events: Annotated[
        list[Annotated[Mark | SkippedLine, Field(union_mode="left_to_right")]],
        Field(max_length=MAX_RARE),
    ]
    left_out: Count = 0
    damaged: Count = 0
    first_damage: str | None = None
    validation_at: tuple[Count, Count] | None = None


# The files that were read last, by device, inode, time and size: a page asks several times for one.
_KEPT: dict[tuple[int, int, int, int], tuple[_Header, Points]] = {}
_KEEPING = threading.Lock()


class CurveIndex:
    """What is known of a record up to a place.

    Attributes:
        indexed_bytes: that place, a line's end.
        file_bytes: how much of the cache was read for it.
    """

    def __init__(self) -> None:
        self.points = Points.none()
        self.width = 1
        self.validations: list[Validated] = []
        self.events: list[Mark | SkippedLine] = []
        self.left_out = self.damaged = 0
        self.first_damage: str | None = None
        self.validation_at: tuple[int, int] | None = None
        self.indexed_bytes = self.file_bytes = 0

    def add(self, lines: Lines, end: int) -> None:
        """Take up the lines from the last place to another one."""
        points = Points.joined([self.points, Points.of_lines(lines.train)])
        self.points = points.by_width(self.width)
        while len(self.points) > MAX_POINTS:
            self.width *= 2
            self.points = self.points.by_width(self.width)
        scored = [Validated(step=line.step, scores=line.scores) for line in lines.validations]
        for kept, new in ((self.validations, scored), (self.events, lines.events)):
            room = MAX_RARE - len(kept)
            kept += new[:room]  # type: ignore[operator]
            self.left_out += max(0, len(new) - room)
        self.damaged += lines.damaged
        self.first_damage = self.first_damage or lines.first_damage
        self.validation_at = lines.validation_at or self.validation_at
        self.indexed_bytes = end


def load_index(record: OpenRecord, cache: Path) -> CurveIndex | None:
    """What the cache has of a record; None if it has nothing that fits."""
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
            return _of_header(header, points, read)
    return None


def _parsed(data: bytes) -> tuple[_Header, Points]:
    """What a file of the cache holds.

    Raises:
        ValueError: it is damaged.
    """
    head, _, body = data.partition(b"\n")
    header = _Header.model_validate_json(head)
    rows = np.frombuffer(body, "<f8")
    if hashlib.sha256(body).hexdigest() != header.points_sha256:
        raise ValueError("its points do not have the sha256 that it names")
    if rows.size != header.points * ROW:
        raise ValueError(f"it has {rows.size:,} numbers, expected {header.points * ROW:,}")
    return header, Points(rows.reshape(-1, ROW))


def extend_index(path: Path, cache: Path, wanted_bytes: int = 0) -> CurveIndex:
    """Read what is new of a record into the cache, all of it if the cache has nothing that fits.

    Args:
        wanted_bytes: how much must be new for the cache to be written again.

    Raises:
        OSError: there is no record, or the cache cannot be written.
        TrainerError: others can change the cache.
    """
    make_cache(cache)
    with OpenRecord(path) as record:
        index = load_index(record, cache) or CurveIndex()
        if record.end - index.indexed_bytes <= wanted_bytes:
            return index
        saved = index.indexed_bytes
        for end, lines in record.chunks(index.indexed_bytes, record.end):
            index.add(lines, end)
            if end - saved > _SAVED_EVERY:
                _save(index, record, cache)
                saved = end
        _save(index, record, cache)
    return index


def make_cache(cache: Path) -> None:
    """Make a folder of the cache, which nobody else may enter.

    Raises:
        OSError: it cannot be made.
        TrainerError: others can change it.
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
            f"{folder} is no folder that only you can enter (mode "
            f"{stat.S_IMODE(status.st_mode):o}, of user {status.st_uid}): nothing is kept there. "
            "Remove it, or close it by chmod 700"
        )


def _open_own(file: Path) -> BinaryIO:
    """Open a file of the cache; links and other people's files are none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    opened = os.fdopen(os.open(file, flags), "rb")
    status = os.fstat(opened.fileno())
    most = MAX_HEADER_BYTES + MAX_POINTS * ROW * 8
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_size <= most:
        return opened
    opened.close()
    raise ValueError(f"{file} is no plain file of this user of at most {most:,} bytes")


def _save(index: CurveIndex, record: OpenRecord, cache: Path) -> None:
    head, tail = _seal(record, index.indexed_bytes)
    body = index.points.rows.astype("<f8").tobytes()
    header = _Header(
        inode=record.inode,
        indexed_bytes=index.indexed_bytes,
        head_sha256=head,
        tail_sha256=tail,
        width=index.width,
        points=len(index.points),
        points_sha256=hashlib.sha256(body).hexdigest(),
        validations=index.validations,
        events=index.events,
        left_out=index.left_out,
        damaged=index.damaged,
        first_damage=index.first_damage,
        validation_at=index.validation_at,
    )
    text = header.model_dump_json(exclude_none=True).encode()
    if len(text) <= MAX_HEADER_BYTES:
        _evict(cache, len(text) + len(body))
        write_atomically(cache / _name_of(record.path), text + b"\n" + body)


def _of_header(header: _Header, points: Points, file_bytes: int) -> CurveIndex:
    index = CurveIndex()
    index.points, index.width, index.file_bytes = points, header.width, file_bytes
    index.validations, index.events = list(header.validations), list(header.events)
    index.left_out, index.damaged = header.left_out, header.damaged
    index.first_damage, index.validation_at = header.first_damage, header.validation_at
    index.indexed_bytes = header.indexed_bytes
    return index


def _seal(record: OpenRecord, indexed_bytes: int) -> tuple[str, str]:
    """Hashes of the beginning and the end of what was read."""
    ends = (
        record.read(0, min(_SEAL_BYTES, indexed_bytes)),
        record.read(max(0, indexed_bytes - _SEAL_BYTES), indexed_bytes),
    )
    first, last = (hashlib.sha256(data).hexdigest() for data in ends)
    return first, last


def _name_of(record: Path) -> str:
    return hashlib.sha256(os.fsencode(record.resolve())).hexdigest()[:32] + SUFFIX


def _evict(cache: Path, wanted: int) -> None:
    """Remove the longest unused files if there are too many bytes."""
    files = [(file.lstat(), file) for file in cache.glob(f"*{SUFFIX}")]
    used = sum(status.st_size for status, _ in files) + wanted
    for status, file in sorted(files, key=lambda pair: pair[0].st_mtime):
        if used <= MAX_CACHE_BYTES:
            return
        file.unlink(missing_ok=True)
        used -= status.st_size
