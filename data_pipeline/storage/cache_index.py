"""Index of the shard cache: total size and eviction order, so that an add lists no folder.

    header   number of records, next record to evict, total bytes, records at the next rebuild
    record   sha256, bytes, modification time of the file when the record was written

The index is the content of the cache's lock file. It is a queue: files are appended when they are
added, and leave from the front. A file that was read since its record was written moves to the back
instead, so the oldest unused files leave first.

The folder is the truth, and the index is rebuilt from it in these cases:

- A process was killed during a change. The header is cleared before the first change and written
  after the last one.
- The size of the file or a checksum is wrong. An earlier version of transloom empties the file with
  each add.
- The queue has as many new records as the folder had files at the last rebuild. A rebuild therefore
  costs constant time per add, and corrects changes that other programs made to the folder.

A wrong index affects only the eviction order and the total size, because a copy's content is
verified whenever it is read.
"""

import contextlib
import os
import re
import struct
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple, Self

PARTIAL_PREFIX = ".partial-"
PARTIAL_LIFETIME_SECONDS = 3600
SHA256_NAME = re.compile("[0-9a-f]{64}")
MIN_ADDS_BETWEEN_REBUILDS = 1000

_VERSION = 1  # the checksums begin with it
_HEADER = struct.Struct("<QQQQ")
_RECORD = struct.Struct("<32sQQ")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CHECKSUM.size
_RECORD_BYTES = _RECORD.size + _CHECKSUM.size


class DamagedIndexError(Exception):
    """The index cannot be used and must be rebuilt."""


class _Header(NamedTuple):
    records: int
    first: int  # number of the record at the front of the queue
    total_bytes: int
    rebuild_at: int  # number of records at which the index is rebuilt


class CacheIndex:
    """Index of one cache folder, used by the process that holds the lock of the cache."""

    def __init__(self, folder: Path, descriptor: int, header: _Header) -> None:
        self._folder = folder
        self._descriptor = descriptor
        self._header = header

    @classmethod
    def open(cls, folder: Path, descriptor: int) -> Self:
        """Return the index in an open file, rebuilt from the folder if it cannot be used.

        Raises:
            OSError: the index cannot be written, or the folder cannot be listed.
        """
        try:
            header = _Header._make(_unpack(_HEADER, os.pread(descriptor, _HEADER_BYTES, 0)))
            file_bytes = os.fstat(descriptor).st_size
            is_whole = file_bytes == _HEADER_BYTES + header.records * _RECORD_BYTES
            if is_whole and header.first <= header.records < header.rebuild_at:
                return cls(folder, descriptor, header)
        except DamagedIndexError:
            pass
        return cls._rebuilt(folder, descriptor)

    @classmethod
    def _rebuilt(cls, folder: Path, descriptor: int) -> Self:
        """Write the index of the files in a folder, and remove what killed processes left there."""
        now = time.time()
        copies: list[tuple[int, int, str]] = []
        for path in folder.iterdir():
            # Processes that find a damaged copy remove it without holding the lock.
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if path.name.startswith(PARTIAL_PREFIX):
                    if now - status.st_mtime > PARTIAL_LIFETIME_SECONDS:
                        path.unlink()
                elif SHA256_NAME.fullmatch(path.name):
                    copies.append((status.st_mtime_ns, status.st_size, path.name))
        records = [_record(name, size, time_ns) for time_ns, size, name in sorted(copies)]
        adds_until_rebuild = max(MIN_ADDS_BETWEEN_REBUILDS, len(records))
        total_bytes = sum(size for _, size, _ in copies)
        header = _Header(len(records), 0, total_bytes, len(records) + adds_until_rebuild)
        os.ftruncate(descriptor, 0)  # without a header, until all records are written
        _write(descriptor, b"".join(records), _HEADER_BYTES)
        index = cls(folder, descriptor, header)
        index._write_header()
        return index

    def add(self, partial: Path, sha256: str, size: int, max_bytes: int) -> None:
        """Evict files until `size` more bytes fit, then rename a complete file into place.

        Raises:
            DamagedIndexError: a record is damaged; the index is rebuilt when it is opened next.
            OSError: a file cannot be renamed or removed, or the index cannot be written.
        """
        path = self._folder / sha256
        _write(self._descriptor, bytes(_HEADER_BYTES), 0)
        if not path.exists():  # another copy has the same size and a record
            self._evict(max_bytes - size)
            self._append(sha256, size, partial.stat().st_mtime_ns)
            self._header = self._header._replace(total_bytes=self._header.total_bytes + size)
        partial.rename(path)
        self._write_header()

    def _evict(self, most_bytes: int) -> None:
        """Remove files from the front of the queue until they have at most `most_bytes`."""
        while self._header.total_bytes > most_bytes and self._header.first < self._header.records:
            position = _HEADER_BYTES + self._header.first * _RECORD_BYTES
            data = os.pread(self._descriptor, _RECORD_BYTES, position)
            digest, size, time_ns = _unpack(_RECORD, data)
            if size > self._header.total_bytes:
                raise DamagedIndexError
            self._header = self._header._replace(first=self._header.first + 1)
            path = self._folder / digest.hex()
            with contextlib.suppress(FileNotFoundError):
                used_ns = path.stat().st_mtime_ns
                if used_ns > time_ns:
                    self._append(path.name, size, used_ns)
                    continue
                path.unlink()
            self._header = self._header._replace(total_bytes=self._header.total_bytes - size)

    def _append(self, sha256: str, size: int, time_ns: int) -> None:
        position = _HEADER_BYTES + self._header.records * _RECORD_BYTES
        _write(self._descriptor, _record(sha256, size, time_ns), position)
        self._header = self._header._replace(records=self._header.records + 1)

    def _write_header(self) -> None:
        _write(self._descriptor, _pack(_HEADER, *self._header), 0)


def _record(sha256: str, size: int, time_ns: int) -> bytes:
    return _pack(_RECORD, bytes.fromhex(sha256), size, time_ns)


def _pack(form: struct.Struct, *values: object) -> bytes:
    data = form.pack(*values)
    return data + _CHECKSUM.pack(zlib.crc32(data, _VERSION))


def _unpack(form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    """Return the values of a header or record.

    Raises:
        DamagedIndexError: the data is too short, or its checksum is wrong.
    """
    content, checksum = data[: form.size], data[form.size :]
    if checksum != _CHECKSUM.pack(zlib.crc32(content, _VERSION)):
        raise DamagedIndexError
    return form.unpack(content)


def _write(descriptor: int, data: bytes, position: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written
