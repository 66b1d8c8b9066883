"""Compressed files, detected by their first bytes and decompressed while they are read."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from backports import zstd

from data_pipeline.errors import CorpusError

BLOCK_BYTES = 1024 * 1024
FIRST_FEED_BYTES = 4096  # size of a frame's first input; each further input is twice as long
PLAIN = "plain"
REFUSED = {  # unsupported compressions, by their first bytes
    b"PK\x03\x04": ("zip", "Unpack it"),
    b"PK\x05\x06": ("zip", "Unpack it"),  # an empty archive
    b"7z\xbc\xaf\x27\x1c": ("7z", "Unpack it"),
    b"Rar!\x1a\x07": ("rar", "Unpack it"),
    b"\x04\x22\x4d\x18": ("lz4", "Compress it again, for example with lz4cat FILE | zstd"),
    b"\x1f\x9d": ("compress", "Compress it again, for example with zcat FILE | zstd"),
    b"\x5d\0\0": ("lzma", "Compress it again, for example with xzcat FILE | zstd"),
}
# Memory limits of decompressors, sufficient for xz -9 and zstd --ultra -22.
XZ_MEMORY_BYTES = 128 * 1024**2
ZSTD_WINDOW_BITS = 27
XZ_PADDING_BYTES = 4  # padding after a stream is a multiple of this many zeros (.xz format, §2.2)


def decompressed(location: str, file: BinaryIO) -> tuple[str, BinaryIO]:
    """Return the name of the compression, and a file with the decompressed content.

    Args:
        file: must be at its beginning.

    Raises:
        CorpusError: the compression is not supported.
    """
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return "gzip", cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if magic.startswith(b"\xfd7zXZ\x00"):
        return "xz", io.BufferedReader(_FrameReader(file, _new_xz, XZ_PADDING_BYTES), BLOCK_BYTES)
    if magic.startswith(b"BZh"):
        return "bzip2", io.BufferedReader(_FrameReader(file, bz2.BZ2Decompressor), BLOCK_BYTES)
    # pzstd starts files with a skippable frame.
    skippable = magic[1:4] == b"\x2a\x4d\x18" and 0x50 <= magic[0] <= 0x5F
    if magic.startswith(b"\x28\xb5\x2f\xfd") or skippable:
        return "zstd", io.BufferedReader(_FrameReader(file, _new_zstd), BLOCK_BYTES)
    for known, (name, remedy) in REFUSED.items():
        if magic.startswith(known):
            raise CorpusError(
                f"{location} is a {name} file, expected a plain, gz, bz2, xz or zst file. {remedy}."
            )
    return PLAIN, file


def _new_xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)


def _new_zstd() -> zstd.ZstdDecompressor:
    window = zstd.DecompressionParameter.window_log_max
    return zstd.ZstdDecompressor(options={window: ZSTD_WINDOW_BITS})


# Decompressors of a single frame; all have the same interface.
_Decompressor = bz2.BZ2Decompressor | lzma.LZMADecompressor | zstd.ZstdDecompressor


class _FrameReader(io.RawIOBase):
    """Reader of the consecutive frames of a bzip2, xz or zstd file.

    `bz2.open` and `lzma.open` are not used, because they mistake a damaged second frame for the end
    of the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        new_decompressor: Callable[[], _Decompressor],
        padding_bytes: int = 0,
    ) -> None:
        """Start at the beginning of a file.

        Args:
            padding_bytes: zeros after a frame are skipped if their number is a multiple of this
                number; 0 allows no zeros.
        """
        self._file = file
        self._padding_bytes = padding_bytes
        self._new_decompressor = new_decompressor
        self._decompressor = new_decompressor()
        self._block = b""
        self._position = 0  # offset in the block of the first byte not yet given to a decompressor
        self._feed_bytes = FIRST_FEED_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while True:
            compressed = b""
            if self._decompressor.eof:
                # The decompressor got more bytes than its frame has; unused_data contains the rest.
                self._position -= len(self._decompressor.unused_data)
                self._feed_bytes = FIRST_FEED_BYTES
                if self._padding_bytes:
                    self._skip_padding()
                compressed = self._next_bytes()
                if not compressed:
                    return 0
                self._decompressor = self._new_decompressor()
            elif self._decompressor.needs_input:
                compressed = self._next_bytes()
                if not compressed:
                    raise EOFError("the file ends too early")
            try:
                data = self._decompressor.decompress(compressed, len(buffer))
            except OSError as error:  # bz2 has no exception for damaged data
                raise EOFError(str(error)) from error
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _skip_padding(self) -> None:
        """Skip zeros between two frames, or after the last one."""
        zeros = 0
        while data := self._next_bytes():
            rest = data.lstrip(b"\0")
            zeros += len(data) - len(rest)
            if rest:
                self._position -= len(rest)
                break
        if zeros % self._padding_bytes:
            raise EOFError(
                f"{zeros:,} zeros follow a stream, expected a multiple of {self._padding_bytes}"
            )
        self._feed_bytes = FIRST_FEED_BYTES

    def _next_bytes(self) -> bytes:
        """Return the decompressor's next input, which is small at the beginning of a frame."""
        if self._position == len(self._block):
            self._block, self._position = self._file.read(BLOCK_BYTES), 0
        stop = self._position + self._feed_bytes
        found = self._block[self._position : stop]
        self._position += len(found)
        self._feed_bytes = min(2 * self._feed_bytes, BLOCK_BYTES)
        return found
