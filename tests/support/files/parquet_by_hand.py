"""Parquet files written byte by byte, with false headers, which no library writes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from backports import zstd

MAGIC = b"PAR1"
BYTE_ARRAY, UTF8, REQUIRED = 6, 0, 0
DATA_PAGE, DICTIONARY_PAGE = 0, 2
UNCOMPRESSED, ZSTD = 0, 6
PLAIN, RLE, DELTA_LENGTHS, DICTIONARY = 0, 3, 6, 8


class Long(int):
    """Integer that is written with Thrift's type i64."""


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def zigzag(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def thrift(value: object) -> tuple[int, bytes]:
    """Return the type and bytes of a value, by Thrift's compact protocol; a dict is a struct."""
    if isinstance(value, int):
        return (6 if isinstance(value, Long) else 5), zigzag(value)
    if isinstance(value, bytes):
        return 8, varint(len(value)) + value
    if isinstance(value, list):
        (kind,) = {thrift(item)[0] for item in value}
        size = bytes([len(value) << 4 | kind]) if len(value) < 15 else bytes([240 | kind])
        more = varint(len(value)) if len(value) >= 15 else b""
        return 9, size + more + b"".join(thrift(item)[1] for item in value)
    assert isinstance(value, dict)
    content, last = b"", 0
    for field, item in sorted(value.items()):
        kind, data = thrift(item)
        content += bytes([field - last << 4 | kind]) + data
        last = field
    return 12, content + b"\0"


@dataclass(frozen=True)
class Page:
    kind: int
    encoding: int
    values: int  # number of values according to the page's header
    content: bytes
    size: int | None = None  # size after decompression, if the content is compressed

    def write(self) -> bytes:
        about = {1: self.values, 2: self.encoding}
        header = {5: about | {3: RLE, 4: RLE}} if self.kind == DATA_PAGE else {7: about}
        stored = len(self.content)
        size = stored if self.size is None else self.size
        return thrift({1: self.kind, 2: size, 3: stored, **header})[1] + self.content


def parquet(pages: Sequence[Page], rows: int, row_groups: int = 1) -> bytes:
    """Write a file with the column "text", all of whose row groups refer to the same bytes.

    Its footer has only the size of the pages as stored.
    """
    content = MAGIC + b"".join(page.write() for page in pages)
    size = Long(len(content) - len(MAGIC))
    column = {
        1: BYTE_ARRAY,
        2: [page.encoding for page in pages],
        3: [b"text"],
        4: UNCOMPRESSED if pages[0].size is None else ZSTD,
        5: Long(rows),
        6: size,
        7: size,
    }
    if pages[0].kind == DICTIONARY_PAGE:
        column |= {9: Long(len(MAGIC) + len(pages[0].write())), 11: Long(len(MAGIC))}
    else:
        column |= {9: Long(len(MAGIC))}
    text = {1: BYTE_ARRAY, 3: REQUIRED, 4: b"text", 6: UTF8}
    group = {1: [{2: Long(len(MAGIC)), 3: column}], 2: size, 3: Long(rows)}
    _, footer = thrift(
        {
            1: 1,
            2: [{4: b"schema", 5: 1}, text],
            3: Long(rows * row_groups),
            4: [group] * row_groups,
        }
    )
    return content + footer + struct.pack("<I", len(footer)) + MAGIC


def repeated_rows(text: bytes, rows: int) -> bytes:
    """Return a text, stored once for any number of rows; a run of indices takes six bytes."""
    entry = Page(DICTIONARY_PAGE, PLAIN, 1, struct.pack("<I", len(text)) + text)
    run = Page(DATA_PAGE, DICTIONARY, rows, b"\1" + varint(rows << 1) + b"\0")
    return parquet([entry, run], rows)


def empty_rows(rows: int, *, rows_of_footer: int, row_groups: int = 1) -> bytes:
    """Return empty texts; pyarrow decodes all their lengths at once, with four bytes each."""
    block = -(-rows // 128) * 128
    lengths = varint(block) + varint(1) + varint(rows) + zigzag(0) + zigzag(0) + b"\0"
    return parquet(
        [Page(DATA_PAGE, DELTA_LENGTHS, rows_of_footer, lengths)], rows_of_footer, row_groups
    )


def compressed_value(text: bytes) -> bytes:
    """Return one text in a compressed page whose size is missing in the footer."""
    content = struct.pack("<I", len(text)) + text
    return parquet([Page(DATA_PAGE, PLAIN, 1, zstd.compress(content), len(content))], 1)
