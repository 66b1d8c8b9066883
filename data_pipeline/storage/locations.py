"""Locations in a recipe, paths or URLs, opened as streams of decompressed, hashed bytes.

    location ──mirror, cache or download──▶ file ──decompress──▶ sha256 ──▶ bytes

A remote file is downloaded completely, to CACHE/corpora/SHA256, before it is read. SHA256 is the
hash of its decompressed content, which the recipe must give. Only content with that hash enters the
cache, and a copy that is found damaged later is removed. The compression is detected from a file's
first bytes. Memory is constant: no file is held in memory as a whole, compressed or not.
"""

import gzip
import hashlib
import io
import lzma
import os
import shutil
import tempfile
import time
import unicodedata
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from backports import zstd

from data_pipeline.config.corpus import COMPRESSIONS, is_remote, plain_name
from data_pipeline.errors import CorpusError
from data_pipeline.storage.budget import Budget
from data_pipeline.storage.compression import BLOCK_BYTES, PLAIN, XZ_MEMORY_BYTES, decompressed
from data_pipeline.storage.phrasebook import phrasebook_pairs
from data_pipeline.storage.regular_files import open_regular
from data_pipeline.storage.remote import download
from foundation.errors import LocationError
from foundation.home import home_folder
from foundation.location import Location, path_escape

BUILTIN = "builtin:"
PHRASEBOOK = {
    f"builtin:phrasebook/{split}.{language}": (split, column)
    for split in ("train", "validation", "test")
    for column, language in enumerate(("fr", "en"))
}
# Text compresses to a tenth of its size, seldom to a fiftieth. The limit does not apply to the
# first gigabyte of content.
EXPANSION = Budget(
    "bytes of content for each byte of a compressed file",
    200,
    "Remove the file, or decompress it if you trust its content: plain files have no such limit",
)
EXPANSION_FREE_BYTES = 1024**3
LEFTOVER_SECONDS = 24 * 3600  # no download is still in progress after this time


def cache_folder(cache: str | None) -> Path:
    """Return the folder for remote files: `cache`, $TRANSLOOM_CACHE or ~/.cache/transloom."""
    default = home_folder() / ".cache" / "transloom"
    return Path(cache or os.environ.get("TRANSLOOM_CACHE") or default).expanduser()


def private_cache(name: str) -> Path:
    """Return a subfolder of the default cache that no other user can access; create it if missing.

    Raises:
        OSError: it cannot be created, or other users can access it.
    """
    folder = cache_folder(None) / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:  # also refuses links
        raise PermissionError(
            f"{folder} is not your folder of mode 700. Remove it, or run chmod 700 on it"
        )
    return folder


def open_location(
    location: str, *, mirror: str | None, cache: Path, sha256: str | None = None
) -> "LocationStream":
    """Open a file's content, after downloading it if it is remote and not in the cache.

    Args:
        mirror: folder with a copy of the file under its base name, which is read instead; None for
            no mirror.
        sha256: hash of the decompressed content; required for remote locations.

    Raises:
        CorpusError: the file cannot be found, fetched or decompressed, now or while reading.
        LocationError: the location carries a credential, or leads out of the mirror's folder.
    """
    location = Location(location)
    if location.startswith(BUILTIN):
        text = _builtin_text(location)
        return LocationStream(location, io.BytesIO(text), len(text))
    path = _find_file(location, mirror, cache, sha256)
    copy = path if mirror is None and is_remote(location) else None
    try:
        return LocationStream(location, open_regular(path), path.stat().st_size, copy)
    except OSError as error:
        raise _unreadable(location, path, error) from error


class LocationStream(io.BufferedIOBase):
    """Decompressed content of a file.

    Attributes:
        bytes_read: number of bytes read so far, of the file as stored (compressed).
        total_bytes: size of the file as stored.
    """

    def __init__(
        self, location: str, file: BinaryIO, total_bytes: int, copy: Path | None = None
    ) -> None:
        """Create a stream of an open file.

        Args:
            copy: path of the file if it is a copy in the cache, which is removed when damaged.
        """
        self.location = location
        self.total_bytes = total_bytes
        self.bytes_read = 0
        self._content_bytes = 0
        self._file = file
        self._copy = copy
        self._hash = hashlib.sha256()
        try:
            self._compression, self._content = decompressed(location, file)
        except CorpusError:
            file.close()
            raise

    @property
    def is_compressed(self) -> bool:
        return self._compression != PLAIN

    @property
    def sha256(self) -> str:
        """Hash of the decompressed bytes that have been read so far."""
        return self._hash.hexdigest()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return exactly `size` bytes, or fewer at the end of the file.

        Raises:
            CorpusError: the file is damaged.
        """
        try:
            data = self._content.read(-1 if size is None else size)
        except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstd.ZstdError) as error:
            if "memory" in str(error).lower():
                raise CorpusError(
                    f"Decompressing {self.location} needs more memory than xz -9 or zstd --ultra "
                    f"-22 do ({error}; at most {XZ_MEMORY_BYTES:,} bytes). Remove the file, or "
                    "decompress it if you trust its content."
                ) from error
            raise CorpusError(
                f"{self.location} is a damaged {self._compression} file of {self.total_bytes:,} "
                f"bytes ({error}). Download the file again.{self._discard_copy()}"
            ) from error
        except OSError as error:
            raise _unreadable(self.location, None, error) from error
        self._content_bytes += len(data)
        if self._content_bytes > EXPANSION_FREE_BYTES and self.is_compressed:
            EXPANSION.check(self._content_bytes // self.total_bytes, self._decompression_bomb)
        self._hash.update(data)
        self.bytes_read = self._file.tell()
        return data

    def count_bytes(self) -> int:
        """Return the size of the whole content, after reading it if the file is compressed."""
        if not self.is_compressed:
            return self.total_bytes
        return sum(map(len, iter(partial(self.read, BLOCK_BYTES), b"")))

    def verify(self, sha256: str | None) -> None:
        """Read the remaining content and check the hash of the whole content.

        Raises:
            CorpusError: the content's hash is not `sha256`.
        """
        while self.read(BLOCK_BYTES):
            pass
        if sha256 is not None and self.sha256 != sha256:
            raise CorpusError(
                f"{self.location} has the wrong content: the recipe has sha256 {sha256}, but the "
                f"file ({self.total_bytes:,} bytes, hashed after decompression) has "
                f"{self.sha256}. Get the file for which the recipe was written, or correct the "
                "hash."
                f"{self._discard_copy()}"
            )

    def close(self) -> None:
        self._content.close()
        self._file.close()
        super().close()

    def _decompression_bomb(self, problem: str) -> CorpusError:
        return CorpusError(f"{self.location}, {self.total_bytes:,} bytes: {problem}.")

    def _discard_copy(self) -> str:
        if self._copy is None:
            return ""
        self._copy.unlink(missing_ok=True)
        return f" The cached copy {self._copy} was removed, so the next attempt downloads it again."


def _builtin_text(location: str) -> bytes:
    if location not in PHRASEBOOK:
        raise CorpusError(
            f"There is no built-in corpus {location}. Name one of the built-in corpora: "
            f"{', '.join(PHRASEBOOK)}."
        )
    split, column = PHRASEBOOK[location]
    return "".join(pair[column] + "\n" for pair in phrasebook_pairs(split)).encode()


def _find_file(location: str, mirror: str | None, cache: Path, sha256: str | None) -> Path:
    if mirror is not None:
        return _find_in_mirror(location, Path(mirror).expanduser())
    if is_remote(location):
        assert sha256 is not None, "the config requires a hash for URLs"
        path = cache / "corpora" / sha256
        if not path.is_file():
            _fill_cache(location, sha256, path)
        return path
    if location.startswith("file://"):
        return in_stored_form(Path(unquote(urlsplit(location).path)))
    return in_stored_form(Path(location).expanduser())


def in_stored_form(path: Path) -> Path:
    """Return the path in the Unicode form in which the file exists, or unchanged if it is missing.

    Archives made on macOS may have names in NFD, where an accent is a separate character.
    """
    forms = (path, *(Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")))
    return next((form for form in forms if form.exists()), path)


def _find_in_mirror(location: str, mirror: Path) -> Path:
    name = unquote(Path(urlsplit(location).path).name)
    if Path(name).name != name or path_escape(name):
        raise LocationError(
            f"{location} ends with the name {name!r}, which leads out of data.mirror, the folder "
            f"{mirror}. Correct the location, which must end with the name of the mirror's file."
        )
    plain = plain_name(PurePosixPath(name)).name
    for candidate in (name, plain, *(plain + suffix for suffix in COMPRESSIONS)):
        if (file := in_stored_form(mirror / candidate)).is_file():
            return file
    raise CorpusError(
        f"The mirror {mirror} has neither {plain} nor {plain}{{{','.join(COMPRESSIONS)}}} as a "
        f"copy of {location}. Put the file there, or remove data.mirror to read from the "
        "location itself."
    )


def _unreadable(location: str, path: Path | None, error: OSError) -> CorpusError:
    where = f" from {path.absolute()}" if path else ""
    return CorpusError(
        f"The corpus {location} cannot be read{where} ({error.strerror or error}). Correct the "
        "path in the recipe, or name the folder that has the file with data.mirror=FOLDER."
    )


def _fill_cache(url: str, sha256: str, path: Path) -> None:
    """Download a remote file to `path`, where it appears only complete and with the right hash.

    Raises:
        CorpusError: the file cannot be fetched, or has another hash.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as work:
            new = Path(work) / "file"
            download(url, new)
            with LocationStream(url, new.open("rb"), new.stat().st_size) as stream:
                stream.verify(sha256)
            new.replace(path)
    except OSError as error:
        raise CorpusError(
            f"The copy of {url} cannot be written to {path.parent} ({error}). Make sure that the "
            "folder is writable and has disk space, or name another folder with "
            "data.cache=FOLDER."
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove the leftovers of killed downloads."""
    for leftover in folder.glob(".download-*"):
        with suppress(FileNotFoundError):  # its process has just removed it
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                shutil.rmtree(leftover)
