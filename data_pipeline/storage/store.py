"""Where a prepared dataset's files come from: a folder, or a URL prefix with a cache before it.

    open_store(location) ──▶ LocalStore    a folder or file:// URL
                         ──▶ RemoteStore   http, https, s3 or gs, through fsspec and shard_cache.py

    read(name, sha256) ──fetch──▶ size and sha256 as promised? ──yes──▶ the bytes
                           ▲                                 ──no───▶ wait, then once more;
                           └───────────────────────────────── after the last try DatasetFileError

All failures are retried alike, a missing file and a wrong hash too: a network file system or an
object store may show an old state for a moment. Stores hold no connection, so that they can be
pickled, forked and shared by threads.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import fsspec

from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.location import Location, way_out, without_credentials
from data_pipeline.storage.locations import cache_folder
from data_pipeline.storage.regular_files import read_regular
from data_pipeline.storage.remote import (
    CONNECT_TIMEOUT_SECONDS,
    REMOTE_SCHEMES,
    RETRY_DELAYS_SECONDS,
    STALL_TIMEOUT_SECONDS,
    file_system,
    said_reason,
    wait_before_retry,
)
from data_pipeline.storage.shard_cache import ShardCache

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 64_000_000


def open_store(
    location: str | Path,
    *,
    cache: Path | None = None,
    cache_bytes: int = 50_000_000_000,
    retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS,
) -> "DatasetStore":
    """The store of a folder or URL; reads nothing yet.

    Args:
        cache: folder for copies of remote files; None: $TRANSLOOM_CACHE or ~/.cache/transloom.
        cache_bytes: most that these copies take.

    Raises:
        DatasetError: the URL cannot be read here.
        LocationError: the URL carries a credential.
    """
    location = Location(str(location))
    scheme, separator, path = location.partition("://")
    if not separator:
        return LocalStore(Path(location), retry_delays_seconds)
    if scheme == "file":
        return LocalStore(Path(path), retry_delays_seconds)
    if scheme not in REMOTE_SCHEMES:
        raise DatasetError(
            f"The dataset {location} has the scheme {scheme!r}, expected one of file, "
            f"{', '.join(REMOTE_SCHEMES)}. Correct data.dataset, or copy the dataset to a folder."
        )
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise DatasetError(
            f"The dataset {location} needs a Python package that is not installed: {error}. "
            f"Install transloom[{scheme}] on every node, or copy the dataset to a folder."
        ) from error
    folder = (cache or cache_folder(None)) / "shards"
    return RemoteStore(location, ShardCache(folder, cache_bytes), retry_delays_seconds)


class DatasetStore(ABC):
    """The files of one prepared dataset."""

    location: str  # as a person would write it, without a slash at the end
    retry_delays_seconds: tuple[float, ...]
    _after_preparing = ""  # what a person has to do after preparing

    def read(self, name: str, sha256: str, size: int | None = None) -> bytes:
        """The content of a file, which is exactly what the manifest promises.

        Raises:
            DatasetFileError: the file is not as promised, even after the last retry.
        """
        return self._retried(lambda: self._read_once(name, sha256, size))

    def holds(self, name: str, sha256: str) -> bool:
        """Whether the file is there now, and as promised; tried once."""
        try:
            self._read_once(name, sha256)
        except DatasetFileError:
            return False
        return True

    def read_manifest(self) -> bytes:
        """The manifest as it stands there now.

        Raises:
            DatasetError: there is none.
        """
        try:
            return self._find_manifest()
        except DatasetFileError as error:
            raise DatasetError(
                f"There is no prepared dataset at {self.location}: expected {MANIFEST_NAME}, "
                f"found {error.found}. Run `transloom prepare` with the recipe first"
                f"{self._after_preparing}, or correct data.dataset."
            ) from error

    @abstractmethod
    def _find_manifest(self) -> bytes:
        """The manifest's bytes.

        Raises:
            DatasetFileError: there is none.
        """

    @abstractmethod
    def _fetch(self, name: str) -> bytes:
        """Tries once to get a file.

        Raises:
            OSError: the try has failed, for whatever reason.
        """

    def _read_once(self, name: str, sha256: str | None = None, size: int | None = None) -> bytes:
        if part := way_out(name):
            raise DatasetFileError(
                without_credentials(name),
                f"a name relative to {self.location}",
                f"{part!r}, which leads out of it",
            )
        try:
            data = self._fetch(name)
        except OSError as error:
            promised = "a readable file" if size is None else f"{size:,} bytes"
            reason = error.strerror or error
            raise DatasetFileError(
                name, f"{promised} in {self.location}", f"no readable file ({reason})"
            ) from error
        if size is not None and len(data) != size:
            raise DatasetFileError(name, f"{size:,} bytes", f"{len(data):,} bytes")
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            raise DatasetFileError(name, f"sha256 {sha256}", f"sha256 {found}")
        return data

    def _retried(self, attempt: Callable[[], bytes]) -> bytes:
        for delay in self.retry_delays_seconds:
            try:
                return attempt()
            except DatasetFileError as error:
                what = f"{error.file} of the dataset {self.location}"
                wait_before_retry(delay, what, f"expected {error.expected}, found {error.found}")
        return attempt()


class LocalStore(DatasetStore):
    """A folder that this process can read."""

    def __init__(
        self, folder: Path, retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS
    ) -> None:
        self.location = str(folder)
        self.retry_delays_seconds = retry_delays_seconds
        self._folder = folder

    def _find_manifest(self) -> bytes:
        # No retry: by far the likeliest reason is that the dataset is not prepared yet.
        return self._read_once(MANIFEST_NAME)

    def _fetch(self, name: str) -> bytes:
        is_manifest = name.startswith("manifest")  # or one that another took the place of
        return read_regular(self._folder / name, MAX_MANIFEST_BYTES if is_manifest else None)


class RemoteStore(DatasetStore):
    """A URL prefix. Verified files are kept in a cache, which is verified again when read."""

    _after_preparing = " and copy the folder there"

    def __init__(
        self,
        url: str,
        cache: ShardCache,
        retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        stall_timeout_seconds: float = STALL_TIMEOUT_SECONDS,
    ) -> None:
        self.location = Location(url.rstrip("/"))
        self.retry_delays_seconds = retry_delays_seconds
        self._cache = cache
        self._connect_timeout_seconds = connect_timeout_seconds
        self._stall_timeout_seconds = stall_timeout_seconds

    def read(self, name: str, sha256: str, size: int | None = None) -> bytes:
        data = self._cache.get(sha256)
        if data is None:
            data = super().read(name, sha256, size)
            self._cache.add(sha256, data)
        return data

    def _find_manifest(self) -> bytes:
        return self._retried(lambda: self._read_once(MANIFEST_NAME))

    def _fetch(self, name: str) -> bytes:
        url = Location(f"{self.location}/{name}")
        try:
            source = file_system(url, self._connect_timeout_seconds, self._stall_timeout_seconds)
            data: bytes = source.cat_file(url)
            return data
        except FileNotFoundError:
            raise OSError("404, not found") from None
        # Every backend has exceptions of its own, and to the dataset they all mean the same.
        except Exception as error:
            # fsspec puts an empty timeout error in front of the one that tells what took so long.
            told = error if str(error) or error.__cause__ is None else error.__cause__
            raise OSError(said_reason(told)) from None
