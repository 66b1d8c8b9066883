"""Split wheels into parts of limited size for transfer to another machine, and join them there.

    wheels ──split──▶ part-01, part-02, …  and  manifest.json ──join──▶ the same wheels

The parts are one stream of all files, cut into pieces of equal size. The manifest has the sha256 of
each file and each part, so that damaged ones are identified. The module needs only Python.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = 1
MANIFEST = "manifest.json"
MIB = 2**20
PART_BYTES = 24 * MIB
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class PartsError(Exception):
    """The parts cannot be collected, joined or installed."""


@dataclass(frozen=True)
class Piece:
    """Name, size in bytes and sha256 of a file or part."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Expected:
    """Package that the machine itself has.

    Attributes:
        version: the version that the machine is assumed to have; None if any version will do.
        pinned: the version in our lock; None if the lock does not have the package.
    """

    version: str | None
    pinned: str | None


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json.

    Attributes:
        files: the wheels, in the order of the stream.
        on_machine: packages that the machine has, by name; the parts have no wheel of them.
        deviations: sentences about differences from an ordinary installation.
    """

    python: str
    machine: str
    files: list[Piece]
    parts: list[Piece]
    on_machine: dict[str, Expected]
    deviations: list[str]

    def write(self, folder: Path) -> None:
        """Write the manifest atomically."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1)
        partial = folder / f"{MANIFEST}.partial"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest in a folder.

        Raises:
            PartsError: the manifest is missing or damaged, or has another format.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found = values.pop("format")
        except FileNotFoundError:
            raise PartsError(f"{path} does not exist. Copy it together with the parts.") from None
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise PartsError(f"{path} is damaged ({error!r}). Copy it again.") from None
        if found != FORMAT:
            raise PartsError(
                f"{path} has format {found!r}; this checkout reads format {FORMAT}. "
                "Collect the parts again, with this checkout."
            )
        try:
            return _manifest_of(values)
        except (TypeError, KeyError, ValueError) as error:
            raise PartsError(f"{path} is damaged ({error!r}). Copy it again.") from None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def piece_of(path: Path) -> Piece:
    """Return the name, size and sha256 of a file."""
    return Piece(path.name, path.stat().st_size, sha256_of(path))


def split(files: Iterable[Path], folder: Path, part_bytes: int = PART_BYTES) -> list[Piece]:
    """Write files as parts into a folder, after removing earlier parts from that folder."""
    for old in folder.glob("part-*"):
        old.unlink()
    parts: list[Piece] = []
    with _stream(files) as stream:
        while content := stream.read(part_bytes):
            path = folder / f"part-{len(parts) + 1:02}"
            path.write_bytes(content)
            parts.append(piece_of(path))
    return parts


def join(manifest: Manifest, folder: Path, into: Path) -> list[Path]:
    """Join the parts in one folder, and write the manifest's files into another.

    Raises:
        PartsError: parts are missing or damaged, or a joined file is; the message names them.
    """
    checked = [_problem_with(folder / part.name, part) for part in manifest.parts]
    if bad := [problem for problem in checked if problem]:
        raise PartsError(
            f"{len(bad)} of {len(checked)} parts in {folder} cannot be used: {'; '.join(bad)}. "
            "Copy these parts again; the others can stay."
        )
    joined = []
    with _stream(folder / part.name for part in manifest.parts) as stream:
        for file in manifest.files:
            path = into / file.name
            path.write_bytes(stream.read(file.size))
            if problem := _problem_with(path, file):
                raise PartsError(
                    f"The parts in {folder} were joined, but {problem}. The manifest describes "
                    "other parts. Collect the parts again, and copy all of them."
                )
            joined.append(path)
    return joined


def difference(name: str, version: str | None, pinned: str | None) -> str | None:
    """Describe how a package's version differs from our pinned version; None if it does not differ.

    The local part of a version, such as the build of torch, is ignored.
    """
    if pinned is None or (version and _public(version) == _public(pinned)):
        return None
    return f"{name} {version or 'of the machine'} instead of {pinned}"


def _public(version: str) -> str:
    return re.sub(r"(\.0)+$", "", version.partition("+")[0])


def _manifest_of(values: dict[str, Any]) -> Manifest:
    for pieces in ("files", "parts"):
        values[pieces] = [Piece(**piece) for piece in values[pieces]]
        for piece in values[pieces]:
            if not _SAFE_NAME.fullmatch(piece.name):
                raise ValueError(f"{piece.name!r} is not a valid file name")
    values["on_machine"] = {name: Expected(**one) for name, one in values["on_machine"].items()}
    return Manifest(**values)


def _problem_with(path: Path, expected: Piece) -> str | None:
    try:
        found = piece_of(path)
    except OSError as error:
        return f"{expected.name} is missing ({error.strerror})"
    if found.size != expected.size:
        return f"{expected.name} has {found.size} bytes, expected {expected.size}"
    if found.sha256 != expected.sha256:
        return f"{expected.name} has sha256 {found.sha256}, expected {expected.sha256}"
    return None


def _stream(paths: Iterable[Path]) -> io.BufferedReader:
    return io.BufferedReader(_Concatenation(paths))


class _Concatenation(io.RawIOBase):
    """Readable stream with the contents of several files in sequence."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = iter(paths)
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._file is None:
                if (path := next(self._paths, None)) is None:
                    return 0
                self._file = path.open("rb")
            if count := self._file.readinto(buffer):
                return int(count)
            self._file.close()
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
