"""Sources of a prepared dataset's files: a folder, or a URL prefix with a cache.

    open_store(location) ──▶ LocalStore    a folder or file:// URL
                         ──▶ RemoteStore   http, https (remote.py), s3, gs or az (object_store.py)

    read(name, sha256) ──fetch──▶ size and sha256 as expected? ──yes──▶ the bytes
                           ▲                                   ──no───▶ wait, then fetch again;
                           └──────────────────────────── DatasetFileError after the last attempt

All failures are retried, including missing files and wrong hashes: a network file system or an
object store may briefly show an old state. A URL gets one request per file and node, however many
processes need the file, as long as the cache keeps it. Stores can be pickled and shared by threads.
A forked process can use stores of folders and web servers; for object stores, see `ObjectStore`.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.storage.budget import Budget, TooManyBytesError
from data_pipeline.storage.locations import cache_folder
from data_pipeline.storage.object_store import (
    OBJECT_SCHEMES,
    ObjectStore,
)
from data_pipeline.storage.regular_files import open_regular
from data_pipeline.storage.remote import (
    REMOTE_SCHEMES,
    RETRY_DELAYS_SECONDS,
    error_reason,
    read_over_http,
    wait_before_retry,
)
from data_pipeline.storage.shard_cache import ShardCache
from foundation.location import Location, path_escape, without_credentials
from foundation.proxies import proxy_hint

T = TypeVar("T")

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 64_000_000
# A file is held in memory as a whole, so the sizes in a manifest are limited, too.
SHARD = Budget(
    "bytes in a shard",
    2 * 1024**3,
    "Prepare the dataset with a lower data.blocks_per_shard or data.pairs_per_block",
)
SMALL_FILE = Budget("bytes in a file other than a shard", 1024**3, "Restore it from a copy")
FETCHES_AT_ONCE = 16  # maximum number of parallel fetches of a process
MAX_BYTES_AHEAD = 64_000_000  # limit on the shards that are fetched while an earlier one is used
MANIFEST = Budget("bytes in a manifest", MAX_MANIFEST_BYTES, "Use larger shards")


def open_store(
    location: str | Path,
    *,
    cache: Path | None = None,
    cache_bytes: int = 50_000_000_000,
    retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS,
) -> "DatasetStore":
    """Return the store of a folder or URL, without reading from it.

    Args:
        cache: folder for copies of remote files, or None for $TRANSLOOM_CACHE or
            ~/.cache/transloom.
        cache_bytes: maximum size of these copies.

    Raises:
        DatasetError: the URL's scheme is unknown.
        LocationError: the URL carries a credential, or names no objects of an object store.
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
    folder = (cache or cache_folder(None)) / "shards"
    return RemoteStore(location, ShardCache(folder, cache_bytes), retry_delays_seconds)


class DatasetStore(ABC):
    """Interface to the files of one prepared dataset."""

    location: str  # in the form that a user would write, without a trailing slash
    retry_delays_seconds: tuple[float, ...]
    _after_preparing = ""  # for messages: what to do after `transloom prepare`

    def read(self, name: str, sha256: str, size: int | None = None) -> bytes:
        """Return the content of a file, verified against the manifest's sha256.

        Args:
            size: size of a shard in bytes according to the manifest, None for other files; at most
                one byte more is read.

        Raises:
            DatasetFileError: the file does not match, even after the last retry, or `size` is too
                large for memory.
        """
        if size is not None and size > SHARD.limit:
            raise DatasetFileError(name, str(SHARD), f"{size:,} in the manifest")
        return self._retried(lambda: self._read_verified(name, sha256, size))

    def read_many(self, files: Sequence[tuple[str, str, int]]) -> Iterator[bytes]:
        """Yield the contents of shards in order, each as `read` returns it.

        Args:
            files: name, sha256 and size in bytes of each shard.
        """
        return (self.read(*file) for file in files)

    def read_parsed(self, name: str, parse: Callable[[bytes], T]) -> T:
        """Return the result of `parse` for the content of a file whose hash is not known.

        Raises:
            DatasetFileError: the file cannot be read, or `parse` raises this error, even after the
                last retry.
        """
        return self._retried(lambda: parse(self._read_once(name)))

    def holds(self, name: str, sha256: str) -> bool:
        """Return whether the file currently exists and matches its hash, without retries."""
        try:
            self._read_once(name, sha256)
        except DatasetFileError:
            return False
        return True

    def read_manifest(self) -> bytes:
        """Return the bytes of the current manifest.

        Raises:
            DatasetError: there is no manifest.
        """
        try:
            return self._find_manifest()
        except DatasetFileError as error:
            if isinstance(error.__cause__, TooManyBytesError):
                raise DatasetError(
                    f"{MANIFEST_NAME} of {self.location} is not a manifest: expected "
                    f"{error.expected}, found {error.found}. Correct data.dataset, or restore the "
                    "file from a copy."
                ) from error
            raise DatasetError(
                f"There is no prepared dataset at {self.location}: expected {MANIFEST_NAME}, "
                f"found {error.found}. Run `transloom prepare` with the recipe first"
                f"{self._after_preparing}, or correct data.dataset."
            ) from error

    @abstractmethod
    def _find_manifest(self) -> bytes:
        """Return the manifest's bytes.

        Raises:
            DatasetFileError: there is no manifest.
        """

    @abstractmethod
    def _fetch(self, name: str, most: int) -> bytes:
        """Try once to fetch a file of at most `most` bytes.

        Raises:
            OSError: the attempt has failed, for any reason.
            TooManyBytesError: the file is larger; it was not read to the end.
        """

    def _read_verified(self, name: str, sha256: str, size: int | None) -> bytes:
        return self._read_once(name, sha256, size)

    def _read_once(self, name: str, sha256: str | None = None, size: int | None = None) -> bytes:
        if part := path_escape(name):
            raise DatasetFileError(
                without_credentials(name),
                f"a name relative to {self.location}",
                f"{part!r}, which leads out of it",
            )
        # Manifests that were replaced by a newer one are named "manifest-….json".
        budget = MANIFEST if name.startswith("manifest") else SMALL_FILE
        try:
            data = self._fetch(name, budget.limit if size is None else size)
        except TooManyBytesError as error:
            promised = str(budget) if size is None else f"{size:,} bytes"
            raise DatasetFileError(name, promised, error.found) from error
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

    def _retried(self, attempt: Callable[[], T]) -> T:
        for delay in self.retry_delays_seconds:
            try:
                return attempt()
            except DatasetFileError as error:
                what = f"{error.file} of the dataset {self.location}"
                wait_before_retry(delay, what, f"expected {error.expected}, found {error.found}")
        return attempt()


class LocalStore(DatasetStore):
    """Dataset in a folder that this process can read."""

    def __init__(
        self, folder: Path, retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS
    ) -> None:
        self.location = str(folder)
        self.retry_delays_seconds = retry_delays_seconds
        self._folder = folder

    def _find_manifest(self) -> bytes:
        # No retry: by far the most likely reason is that the dataset is not prepared yet.
        return self._read_once(MANIFEST_NAME)

    def _fetch(self, name: str, most: int) -> bytes:
        with open_regular(self._folder / name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise TooManyBytesError(f"{size:,} bytes")
            data = file.read(size)
            while len(data) < size and (more := file.read(size - len(data))):
                data += more  # some file systems return fewer bytes than requested
            return data


class RemoteStore(DatasetStore):
    """Dataset below a URL, with a cache of verified files, which are verified again when read."""

    _after_preparing = " and copy the folder there"

    def __init__(
        self,
        url: str,
        cache: ShardCache,
        retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS,
    ) -> None:
        self.location = Location(url.rstrip("/"))
        self.retry_delays_seconds = retry_delays_seconds
        self._cache = cache
        self._objects: ObjectStore | None = None
        if self.location.partition("://")[0] in OBJECT_SCHEMES:
            self._objects = ObjectStore(self.location)

    def read_many(self, files: Sequence[tuple[str, str, int]]) -> Iterator[bytes]:
        """Yield the contents of shards in order, and fetch the following ones meanwhile."""
        waiting, pending, bytes_ahead = deque(files), deque[tuple[Future[bytes], int]](), 0
        pool = ThreadPoolExecutor(FETCHES_AT_ONCE, "fetch-shard")
        try:
            while waiting or pending:
                while waiting and (not pending or bytes_ahead + waiting[0][2] <= MAX_BYTES_AHEAD):
                    file = waiting.popleft()
                    pending.append((pool.submit(self.read, *file), file[2]))
                    bytes_ahead += file[2]
                future, size = pending.popleft()
                yield future.result()
                bytes_ahead -= size
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read_verified(self, name: str, sha256: str, size: int | None) -> bytes:
        """Return a file from the cache, or fetch it once for all processes of this node."""
        most = SMALL_FILE.limit if size is None else size
        data = self._cache.get(sha256, most)
        if data is None:
            with self._cache.fetching(sha256):
                data = self._cache.get(sha256, most)
                if data is None:
                    data = self._read_once(name, sha256, size)
                    self._cache.add(sha256, data)
        return data

    def _find_manifest(self) -> bytes:
        return self._retried(lambda: self._read_once(MANIFEST_NAME))

    def _fetch(self, name: str, most: int) -> bytes:
        url = Location(f"{self.location}/{name}")
        try:
            if self._objects:
                return self._objects.get(name, most).data
            return read_over_http(url, most)
        except TooManyBytesError:
            raise
        except FileNotFoundError:
            raise OSError("404, not found") from None
        # Each backend raises different exceptions; any of them means a failed attempt.
        except Exception as error:
            # fsspec's timeout error has no text, but its cause names the slow operation.
            told = error if str(error) or error.__cause__ is None else error.__cause__
            raise OSError(f"{error_reason(told)}{proxy_hint(url)}") from None
