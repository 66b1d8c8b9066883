"""Tar archives written byte by byte, so that any part can be wrong."""

import io
from collections.abc import Collection
from typing import BinaryIO

from data_pipeline.storage.budget import Budget
from data_pipeline.storage.tar import TarMember, read_members

ZEROS = bytes(1024)  # the end of an archive


def read(
    archive: bytes | BinaryIO,
    decoded: Collection[str] = ("txt",),
    max_member_bytes: int = 100_000,
) -> list[TarMember]:
    """Read all members of "a.tar"."""
    members = read_members(
        io.BytesIO(archive) if isinstance(archive, bytes) else archive,
        archive="a.tar",
        decoded=dict.fromkeys(decoded, Budget("bytes", max_member_bytes, "Make it smaller")),
        max_member_bytes=max_member_bytes,
    )
    return list(members)


def header(name: bytes, size: int | bytes, kind: bytes = b"0", rest: bytes = b"") -> bytes:
    """Return the 512 bytes of a POSIX header; `rest` replaces the fields from the link name on."""
    size_field = size if isinstance(size, bytes) else b"%011o\0" % size
    mode_and_owner = b"0000644\0" + b"0000000\0" * 2
    start = name.ljust(100, b"\0") + mode_and_owner + size_field + b"0" * 11 + b"\0"
    end = kind + (rest or bytes(100) + b"ustar\x0000").ljust(355, b"\0")
    checksum = sum(start) + sum(end) + 8 * ord(" ")
    return start + b"%06o\0 " % checksum + end


def entry(name: bytes, data: bytes = b"data\n", kind: bytes = b"0", rest: bytes = b"") -> bytes:
    return header(name, len(data), kind, rest) + data + bytes(-len(data) % 512)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return a PAX header for the next member, or (kind g) for all later members."""
    data = b""
    for keyword, value in records:
        rest = b" %s=%s\n" % (keyword, value)
        length = next(n for n in range(len(rest), len(rest) + 9) if len(b"%d" % n + rest) == n)
        data += b"%d" % length + rest
    return entry(b"PaxHeaders/0", data, kind)


GOOD = entry(b"good.txt")
