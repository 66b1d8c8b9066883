"""Framing of LevelDB's log format, which W&B uses for its files.

A file is a sequence of blocks of 32 KiB; the first block begins with a header of W&B. A record is
stored as one chunk, or as several chunks if it crosses the boundary of a block. A chunk has a
header of 7 bytes: the CRC-32 of type and payload, the payload's length, the type.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

BLOCK_BYTES = 32768
_FILE_HEADER_BYTES = 7
_CHUNK_HEADER_BYTES = 7
_FULL, _FIRST, _LAST = 1, 2, 4


def whole_records(file: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the complete records of a file after `start`, each as (end position, payload).

    `start` must be the start of a block. Reading ends at the end of the file, or at the first torn
    record.
    """
    assert start % BLOCK_BYTES == 0, start
    with file.open("rb") as opened:
        opened.seek(start)
        content = opened.read()
    position = 0 if start else _FILE_HEADER_BYTES
    parts: bytes | None = None  # None while reading a record that begins before `start`
    while position + _CHUNK_HEADER_BYTES <= len(content):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < _CHUNK_HEADER_BYTES:
            position += left
            continue
        checksum = int.from_bytes(content[position : position + 4], "little")
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]
        end = position + _CHUNK_HEADER_BYTES + length
        if end > len(content) or zlib.crc32(content[position + 6 : end]) != checksum:
            return
        payload = content[position + _CHUNK_HEADER_BYTES : end]
        position = end
        if kind in (_FULL, _FIRST):
            parts = payload
        elif parts is not None:
            parts += payload
        if kind in (_FULL, _LAST) and parts is not None:
            yield start + position, parts
