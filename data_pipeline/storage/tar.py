"""Streaming reader of untrusted tar archives: nothing is executed, skipped or opened by name.

The input is any binary stream: one of our shards, or a WebDataset tar from another source. It is
read in three steps:

  1. Each 512-byte header is checked against its checksum; ustar, GNU and PAX headers give the name
     and size of a member.
  2. Only regular files and directories are allowed. Names must be relative and have no special
     characters. Sizes are checked before memory is allocated.
  3. Data is read or skipped as the caller decides. The end must be present: a block of zeros, and
     nothing but zeros after it.

The output consists of members with WebDataset's names. The key of a member is its folder and its
base name up to the first dot; the suffix is the rest of the base name, in lower case.

Archives of other systems may have names with backslashes or in other encodings, directories that
are marked only by the end of their names, and hidden files that macOS adds, such as ._a.txt and
__MACOSX/a.txt. `read_members` accepts such archives and, like webdataset, skips hidden files. Our
own shards have none of these, so `TarReader` refuses them by default.

Python's tarfile is not used here. It takes a damaged header, a header of zeros or a truncation
between two members for the end of the archive. It also reads sparse files as regular ones, and
holds PAX headers of any size in memory.
"""

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from data_pipeline.errors import TarContentError
from data_pipeline.storage.budget import Budget

BLOCK_BYTES = 512
ZERO_BLOCK = bytes(BLOCK_BYTES)
# Enough for the longest path and some extended attributes.
EXTENDED_HEADER = Budget(
    "bytes in an extended header", 64 * 1024, "Write the archive without extended attributes"
)
NAME = Budget("characters in a member's name", 4096, "Give it a shorter name")  # Linux's maximum
# Skipping members takes no memory, but it takes time: this many members have 50 GB of headers.
HEADERS = Budget("headers of members in one archive", 100_000_000, "Split the archive into several")
NAME_SHOWN = 200
PICKLE_SUFFIXES = frozenset({"pkl", "pickle", "pyd", "pth", "pt"})

_REGULAR, _DIRECTORY = (b"0", b"\0", b"7"), b"5"  # 7: contiguous file, read as regular (POSIX)
_HIDDEN = re.compile(r"(?:^|/)(?:__MACOSX/|\.[^/]*$)")  # AppleDouble files, .DS_Store and others
_GNU_LONG_NAME, _PAX, _PAX_GLOBAL = b"L", b"x", b"g"
_REFUSED = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"6": "FIFO",
    b"K": "link with a long name",
    b"S": "sparse file",
}
_SKIPPED_AT_ONCE_BYTES = 64 * 1024
_PAX_LENGTH = re.compile(rb"(\d{1,6}) ")


@dataclass(frozen=True)
class TarMember:
    """Regular file of an archive; `suffix` is in lower case without a leading dot."""

    key: str
    suffix: str
    data: bytes


def read_members(
    file: BinaryIO,
    *,
    archive: str,
    decoded: Mapping[str, Budget],
    max_member_bytes: int,
) -> Iterator[TarMember]:
    """Yield the members whose suffix is in `decoded`, in the archive's order, and skip the others.

    Args:
        file: need not be seekable; its errors propagate unchanged.
        archive: the archive's name in messages.
        decoded: suffixes of the members to yield, each with the limit on a member's size.

    Raises:
        TarContentError: a member is too large, or the archive has contents that the module's
            docstring rules out. Pickles are refused, too, unless their suffix is in `decoded`
            (".pt" may be Portuguese, and decoding here never unpickles). The message names the
            archive and the member.
    """
    reader = TarReader(file, archive=archive, max_member_bytes=max_member_bytes, foreign=True)
    for key, suffix in reader:
        if suffix in decoded:
            yield TarMember(key, suffix, reader.read(decoded[suffix]))
        elif suffix.rpartition(".")[2] in PICKLE_SUFFIXES:
            raise TarContentError(
                archive, reader.name, f"expected no pickles, found suffix {suffix!r}"
            )


class TarReader:
    """Iterator over the members of an archive.

    Iterating yields (key, suffix) of each regular file and skips directories. `read()` returns the
    data of the current file; data that is not read is skipped. `span` is the byte range of that
    file, with its headers: the bytes of several spans can be joined to a smaller archive.

    Raises:
        TarContentError: the archive has contents that the module's docstring rules out.
    """

    def __init__(
        self, file: BinaryIO, *, archive: str, max_member_bytes: int, foreign: bool = False
    ) -> None:
        """Start at the beginning of an archive.

        Args:
            foreign: True if another program may have written the archive; see the module's
                docstring.
        """
        self._file = file
        self._archive = archive
        self._foreign = foreign
        self._max_member_bytes = max_member_bytes
        self._offset = 0  # offset of the next byte to read
        self._start = 0  # offset of the first header of the current member
        self._headers = 0
        self.name = ""  # name of the current member
        self._data_bytes = self._padding_bytes = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        while (header := self._next_member()) is not None:
            kind, self.name, size = header
            if kind == _DIRECTORY:
                if size:
                    raise self._error(f"expected a directory of 0 bytes, found {size:,}")
                continue
            if size > self._max_member_bytes:
                raise self._error(
                    f"expected at most {self._max_member_bytes:,} bytes, found {size:,}"
                )
            self._data_bytes, self._padding_bytes = size, -size % BLOCK_BYTES
            if not (self._foreign and _HIDDEN.search(self.name)):
                yield self._split_name()
            self._skip(self._data_bytes + self._padding_bytes)
        self._check_end()

    @property
    def span(self) -> slice:
        """Byte range of the current member, with headers and padding; valid before `read()`."""
        return slice(self._start, self._offset + self._data_bytes + self._padding_bytes)

    def read(self, budget: Budget) -> bytes:
        """Return the data of the current member if the budget allows its size."""
        budget.check(self._data_bytes, self._error)
        data = self._take(self._data_bytes, "data")
        self._data_bytes = 0
        return data

    def _next_member(self) -> tuple[bytes, str, int] | None:
        """Read type, name and size of the next member from its headers; return None at the end."""
        extended: dict[str, str] = {}
        self._start = self._offset
        while True:
            self.name = f"the header at byte {self._offset:,}"
            block = self._take(BLOCK_BYTES, "a header or the block of zeros that ends the archive")
            if block == ZERO_BLOCK and not extended:
                return None
            self._headers += 1
            if self._headers > HEADERS.limit:  # calling `check` for each header would take time
                HEADERS.check(self._headers, self._error)
            self._check_sum(block)
            kind, size = block[156:157], self._number(block[124:136])
            if kind in (_GNU_LONG_NAME, _PAX, _PAX_GLOBAL):
                extended |= self._read_extended(kind, size)
                continue
            name = extended.get("path") or self._decode(_name_in(block))
            self.name = name
            if kind not in (*_REGULAR, _DIRECTORY):
                found = _REFUSED.get(kind, "member")
                raise self._error(f"expected a regular file, found a {found} of type {kind!r}")
            if extended:  # names in plain headers have at most 256 bytes
                NAME.check(len(name), self._error)
            if self._foreign:
                name = self.name = name.replace("\\", "/")
                kind = _DIRECTORY if name.endswith("/") else kind
            self._check_name(name)
            return kind, name, int(extended.get("size", size))

    def _read_extended(self, kind: bytes, size: int) -> dict[str, str]:
        """Return the path and size that an extended header sets for the next member."""
        EXTENDED_HEADER.check(size, self._error)
        data = self._take(size, "an extended header")
        self._skip(-size % BLOCK_BYTES)
        if kind == _GNU_LONG_NAME:
            return {"path": self._decode(data.removesuffix(b"\0"))}
        records = self._pax_records(data)
        if any(keyword.startswith(b"GNU.sparse.") for keyword in records):
            raise self._error("expected a regular file, found a sparse file (GNU.sparse)")
        given = {keyword: records[keyword] for keyword in (b"path", b"size") if keyword in records}
        if given and kind == _PAX_GLOBAL:
            raise self._error(
                f"expected a global header without path and size, found {str(given)[:NAME_SHOWN]}"
            )
        if not re.fullmatch(rb"\d{1,20}", given.get(b"size", b"0")):
            raise self._error(f"expected a size in digits, found {given[b'size'][:40]!r}")
        return {keyword.decode(): self._decode(value) for keyword, value in given.items()}

    def _pax_records(self, data: bytes) -> dict[bytes, bytes]:
        r"""Parse records "LENGTH KEYWORD=VALUE\n"; the length covers the whole record."""
        records = {}
        start = 0
        while start < len(data):
            length = _PAX_LENGTH.match(data, start)
            end = start + int(length[1]) if length else 0
            record = data[length.end() if length else 0 : end]
            keyword, equals, value = record.removesuffix(b"\n").partition(b"=")
            if end > len(data) or not equals or not record.endswith(b"\n"):
                found = data[start : start + 40]
                raise self._error(f"expected a PAX record at its byte {start:,}, found {found!r}")
            records[keyword] = value
            start = end
        return records

    def _check_sum(self, block: bytes) -> None:
        """Compare the header's checksum with the sum of its bytes.

        The eight bytes of the checksum itself count as spaces.
        """
        found = sum(block) - sum(block[148:156]) + 8 * ord(" ")
        if self._number(block[148:156]) != found:
            raise self._error(f"expected checksum {block[148:156]!r}, found {found:o} (octal)")

    def _number(self, field: bytes) -> int:
        if field[0] == 0x80:  # GNU: base 256, for sizes from 8 GiB
            return int.from_bytes(field[1:], "big")
        digits = field.strip(b" \0")
        if not digits or digits.strip(b"01234567"):
            raise self._error(f"expected an octal number, found {field!r}")
        return int(digits, 8)

    def _decode(self, name: bytes) -> str:
        try:
            return name.decode()
        except UnicodeDecodeError:
            if self._foreign:  # a name in an older encoding; it serves only as a key
                return name.decode("latin-1")
            raise self._error(f"expected a name in UTF-8, found {name[:200]!r}") from None

    def _check_name(self, name: str) -> None:
        strange = name.startswith("/") or "\\" in name or "\0" in name
        if not name or strange or ".." in name.split("/"):
            raise self._error(
                f"expected a relative name with no '..', backslash or NUL, found {name[:200]!r}"
            )

    def _split_name(self) -> tuple[str, str]:
        folder, slash, base = self.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if not stem:
            raise self._error(f"expected a name KEY.SUFFIX, found {self.name[:200]!r}")
        return folder + slash + stem, suffix.lower()

    def _take(self, count: int, what: str) -> bytes:
        data = self._file.read(count)
        if len(data) < count:  # at the end, or if the stream returns only available bytes
            buffer = bytearray(data)
            while len(buffer) < count and (more := self._file.read(count - len(buffer))):
                buffer += more
            data = bytes(buffer)
        if len(data) < count:
            raise self._truncated(count, what, len(data))
        self._offset += count
        return data

    def _skip(self, count: int) -> None:
        if isinstance(self._file, io.BytesIO):  # skip data in memory without a copy
            left = self._file.getbuffer().nbytes - self._file.tell()
            if count > left:
                raise self._truncated(count, "data", left)
            self._file.seek(count, io.SEEK_CUR)
            self._offset += count
            return
        while count:
            part = min(count, _SKIPPED_AT_ONCE_BYTES)
            self._take(part, "data")
            count -= part

    def _check_end(self) -> None:
        """Check that only zeros follow the end, since members after it would be ignored."""
        while rest := self._file.read(_SKIPPED_AT_ONCE_BYTES):
            if rest != bytes(len(rest)):
                self.name = "the end of the archive"
                raise self._error(
                    f"expected only zeros from byte {self._offset:,}, found more data"
                )
            self._offset += len(rest)
        if self._offset % BLOCK_BYTES:
            raise self._truncated(BLOCK_BYTES, "padding", self._offset % BLOCK_BYTES)

    def _truncated(self, expected: int, what: str, found: int) -> TarContentError:
        return self._error(
            f"truncated: expected {expected:,} bytes of {what} from byte {self._offset:,}, "
            f"found {found:,}"
        )

    def _error(self, problem: str) -> TarContentError:
        return TarContentError(self._archive, self.name[:NAME_SHOWN], problem)


def _name_in(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    # Only POSIX headers have a prefix; GNU headers have times at its offset.
    posix = block[345] and block[257:263] == b"ustar\0"
    prefix = block[345:500].partition(b"\0")[0] if posix else b""
    return prefix + b"/" + name if prefix else name
