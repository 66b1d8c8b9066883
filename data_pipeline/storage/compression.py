"""Compressed files: what their first bytes tell, and their content, decompressed as it is read."""

import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from backports import zstd

from data_pipeline.errors import CorpusError

BLOCK_BYTES = 1024 * 1024
FIRST_FEED_BYTES = 4096  # of a frame of a compressed file, and twice as many each time
PLAIN = "plain"
REFUSED = {  # refused compressions by their first bytes
    b"BZh": ("bzip2", "Compress it anew, for example with bzcat FILE | zstd"),
    b"PK\x03\x04": ("zip", "Unpack it"),
}
# What a decompressor keeps: enough for xz -9 and zstd --ultra -22.
XZ_MEMORY_BYTES = 128 * 1024**2
ZSTD_WINDOW_BITS = 27


def decompressed(location: str, file: BinaryIO) -> tuple[str, BinaryIO]:
    """The name of the compression, and the content of a file at its beginning.

    Raises:
        CorpusError: it is compressed in a way that is not read here.
    """
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return "gzip", cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if magic.startswith(b"\xfd7zXZ\x00"):
        return "xz", io.BufferedReader(_FrameReader(file, _new_xz), BLOCK_BYTES)
    skippable = magic[1:4] == b"\x2a\x4d\x18" and 0x50 <= magic[0] <= 0x5F  # pzstd begins so
    if magic.startswith(b"\x28\xb5\x2f\xfd") or skippable:
        return "zstd", io.BufferedReader(_FrameReader(file, _new_zstd), BLOCK_BYTES)
    for known, (name, remedy) in REFUSED.items():
        if magic.startswith(known):
            raise CorpusError(
                f"{location} is a {name} file, expected plain, gz, xz or zst. {remedy}."
            )
    return PLAIN, file


def _new_xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)


def _new_zstd() -> zstd.ZstdDecompressor:
    window = zstd.DecompressionParameter.window_log_max
    return zstd.ZstdDecompressor(options={window: ZSTD_WINDOW_BITS})


class _FrameReader(io.RawIOBase):
    """The frames of an xz or zstd file, one after another.

    `lzma.open` is not used, because it takes a damaged second frame for the end of the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        new_decompressor: Callable[[], lzma.LZMADecompressor | zstd.ZstdDecompressor],
    ) -> None:
        self._file = file
        self._new_decompressor = new_decompressor
        self._decompressor = new_decompressor()
        self._block = b""
        self._position = 0  # in the block, of what no decompressor has yet
        self._feed_bytes = FIRST_FEED_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while True:
            compressed = b""
            if self._decompressor.eof:
                # It was given more than its frame, which it hands back as a copy.
                self._position -= len(self._decompressor.unused_data)
                self._feed_bytes = FIRST_FEED_BYTES
                compressed = self._next_bytes()
                if not compressed:
                    return 0
                self._decompressor = self._new_decompressor()
            elif self._decompressor.needs_input:
                compressed = self._next_bytes()
                if not compressed:
                    raise EOFError("it ends too early")
            data = self._decompressor.decompress(compressed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _next_bytes(self) -> bytes:
        """What the decompressor gets next: little of a new frame, which may be a few bytes."""
        if self._position == len(self._block):
            self._block, self._position = self._file.read(BLOCK_BYTES), 0
        stop = self._position + self._feed_bytes
        found = self._block[self._position : stop]
        self._position += len(found)
        self._feed_bytes = min(2 * self._feed_bytes, BLOCK_BYTES)
        return found
