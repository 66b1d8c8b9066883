"""Objects in S3, Google Cloud Storage or Azure Blob Storage, through obstore.

    ObjectStore("s3://BUCKET/PREFIX")
        get, get_range, list          reads
        put, delete                   unconditional writes
        put_new, put_over             writes that only one of several writers can win

This is the only file that imports obstore. All calls are synchronous, and limited in time: a
server that does not respond leads to an error after the connect and stall timeouts, about a minute
with the defaults (`ObjectStore` has the details). Every failure is an `ObjectStoreError`, whose
text has the object's URL and the reason, but no credential.

A conditional write may be applied although its caller sees an error. If a server applies the write,
but its response is lost or is a 5xx, the caller gets an `ObjectStoreError` after a timeout, or an
`ObjectConflictError` after a retry, because the caller's own write has changed the object. After
either error, read the object again and compare its content with the intended content.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.object_access import AccessError, ObjectAccess, access_for
from data_pipeline.storage.object_errors import (
    BusyError,
    ObjectAccessError,
    ObjectMissingError,
    ObjectStoreError,
    failure_of,
)
from foundation.errors import LocationError
from foundation.location import Location, path_escape, without_credentials
from foundation.untrusted_text import visible_line

OBJECT_SCHEMES = ("s3", "gs", "az")
CONNECT_TIMEOUT_SECONDS = 10.0
STALL_TIMEOUT_SECONDS = 30.0  # longest wait for the next byte
MAX_PUT_BYTES = 64 * 1024**2  # maximum size of an object; there are no multipart uploads
# Limits of a listing, because the bucket may belong to another user.
MAX_LISTED = 100_000
MAX_LIST_SECONDS = 60.0
# Slower transfers fail.
MIN_READ_BYTES_PER_SECOND = 100_000
MIN_WRITE_BYTES_PER_SECOND = 500_000
_SMALL_PUT_BYTES = 1024**2
_CONFLICT_DELAYS_SECONDS = (0.2, 0.5, 1.0)
_MAX_RETRIES = 3
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.1, 1.0
_LONG_SECONDS = 24 * 3600.0  # obstore's limit on reads, whose speed is checked here instead

_BUCKET = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_T = TypeVar("_T")
# Id of the process in which obstore has started its threads. A forked process lacks these threads.
_user_of_obstore: int | None = None


class StoredObject(NamedTuple):
    """Content of an object, and its etag for `ObjectStore.put_over`."""

    data: bytes
    etag: str


class ObjectInfo(NamedTuple):
    """Entry of a listing.

    Attributes:
        name: name relative to the store's URL.
        modified: time of the last write by the server's clock, in seconds since 1970.
    """

    name: str
    bytes: int
    modified: float


class ObjectStore:
    """Objects below a URL prefix, such as s3://BUCKET/PREFIX.

    It can be pickled and shared by threads. A forked process can use it if its parent has not used
    any object store before; otherwise it gets an error, because obstore's threads do not survive a
    fork.

    Time limits:
        CONNECT_TIMEOUT_SECONDS: limit for connecting. Errors 5xx, refused connections and 409 are
            retried within this time after the first attempt.
        STALL_TIMEOUT_SECONDS: longest wait for the next byte of a response. A put has this time
            plus 1 s for each 500 kB above 1 MiB; a read has this time plus 1 s for each 100 kB
        received.

    A server that stops responding therefore leads to an error after at most three connect timeouts
    plus the stall timeout, 60 s.

    Raises:
        LocationError: the URL has another scheme, no bucket, a credential or a query.
    """

    def __init__(self, url: str) -> None:
        self.url = Location(url.rstrip("/"))
        self._scheme, separator, path = self.url.partition("://")
        self._bucket, _, prefix = path.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        if not separator or self._scheme not in OBJECT_SCHEMES:
            raise LocationError(
                f"{self.url} has the scheme {self._scheme!r}, expected one of "
                f"{', '.join(OBJECT_SCHEMES)}. Correct the location."
            )
        problem = _oddity(prefix)
        if problem or not _BUCKET.fullmatch(self._bucket):
            raise LocationError(
                f"{visible_line(without_credentials(url))} is not the location of objects: "
                f"{problem or 'it has no valid name of a bucket'}. Expected "
                f"{self._scheme}://BUCKET/PREFIX without a query. Correct the location."
            )
        self._access: ObjectAccess | None = None
        self._clients: dict[int, Any] = {}
        self._pid: int | None = None  # the process that created the clients

    @classmethod
    def of_object(cls, url: str) -> tuple[Self, str]:
        """Return the store of an object's bucket, and the object's name there.

        Raises:
            LocationError: as for the class, or the URL names no object.
        """
        scheme, _, path = Location(url).partition("://")
        bucket, _, name = path.partition("/")
        store = cls(f"{scheme}://{bucket}")
        if problem := _oddity(name) or (not name and "it has no name"):
            raise LocationError(
                f"{visible_line(without_credentials(url))} is not the location of an object: "
                f"{problem}. Expected {scheme}://BUCKET/NAME without a query. Correct the location."
            )
        return store, name

    def get(self, name: str, most: int) -> StoredObject:
        """Return an object of at most `most` bytes, and its etag.

        Raises:
            TooManyBytesError: the object is larger; it was not read to the end.
            ObjectMissingError: there is no such object.
            ObjectStoreError: the object cannot be read.
        """
        return self._get(name, most)

    def _get(self, name: str, most: int, options: Any = None) -> StoredObject:
        import obstore

        def read(client: Any) -> StoredObject:
            result = obstore.get(client, key, options=options)
            return StoredObject(b"".join(self._chunks(result, most)), self._etag(result.meta))

        key = self._key(name)
        return self._request(name, read)

    def download(self, name: str, path: Path, most: int) -> None:
        """Write an object of at most `most` bytes to a file, piece by piece.

        Raises:
            TooManyBytesError: the object is larger; it was not read to the end.
            ObjectMissingError: there is no such object.
            ObjectStoreError: the object cannot be read.
            OSError: the file cannot be written.
        """
        import obstore

        def read(client: Any) -> None:
            result = obstore.get(client, key)
            with path.open("wb") as file:
                for chunk in self._chunks(result, most):
                    file.write(chunk)

        key = self._key(name)
        self._request(name, read)

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """Return exactly the bytes `start` to `stop` (exclusive) of an object.

        Raises:
            ObjectMissingError: there is no such object.
            ObjectStoreError: the object cannot be read, or is shorter than `stop`.
        """
        assert 0 <= start <= stop, (start, stop)
        self._key(name)  # check the name, even if no bytes are read
        if start == stop:
            return b""
        try:
            data = self._get(name, stop - start, {"range": (start, stop)}).data
        except TooManyBytesError as error:
            found = error.found
        else:
            if len(data) == stop - start:
                return data
            found = f"{len(data):,} bytes"
        raise ObjectStoreError(
            f"{self._shown(name)}: expected the {stop - start:,} bytes from {start:,} on, found "
            f"{found}"
        )

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write an object of at most MAX_PUT_BYTES, or replace it, atomically."""
        self._put(name, data, "overwrite")

    def put_new(self, name: str, data: bytes) -> str:
        """Create an object and return its etag.

        Raises:
            ObjectConflictError: it exists. Its content may be `data`, see this module's docstring.
            ObjectStoreError: the request has failed; the object may exist nevertheless.
        """
        return self._put(name, data, "create")

    def put_over(self, name: str, data: bytes, etag: str) -> str:
        """Replace an object that still has this etag, and return its new etag.

        Raises:
            ObjectConflictError: it has another etag, or does not exist. Its content may be `data`,
                see this module's docstring.
            ObjectStoreError: the request has failed; the object may be replaced nevertheless.
        """
        if not etag:
            raise ObjectStoreError(
                f"{self._shown(name)}: the server gave no etag, which conditional writes need"
            )
        return self._put(name, data, {"version" if self._scheme == "gs" else "e_tag": etag})

    def list(
        self, prefix: str = "", *, most: int = MAX_LISTED, seconds: float = MAX_LIST_SECONDS
    ) -> Iterator[ObjectInfo]:
        """Yield the objects below the folder `prefix`; all names are relative to the URL.

        Args:
            most: maximum number of objects.
            seconds: maximum time between the first request and the last object.

        Raises:
            ObjectStoreError: a request has failed, or a limit is exceeded.
        """
        import obstore

        def begin(client: Any) -> tuple[Any, Any]:
            entries = iter(obstore.list(client, folder or None))
            return entries, next(entries, None)

        folder = self._key(prefix.rstrip("/")) + "/" if prefix.strip("/") else self._prefix
        count, deadline = 0, time.monotonic() + seconds
        entries, chunk = self._request(prefix, begin)
        while chunk is not None:
            count += len(chunk)
            if count > most or time.monotonic() > deadline:
                raise ObjectStoreError(
                    f"{self._shown(prefix)}: its list has {count:,} objects so far, expected at "
                    f"most {most:,} within {seconds:.0f} s"
                )
            for meta in chunk:
                key = meta["path"]
                if key.startswith(folder) and key != folder:  # skip the folder's marker
                    name = key[len(self._prefix) :]
                    yield ObjectInfo(name, meta["size"], meta["last_modified"].timestamp())
            # No retry: after an error, the iterator would end as if the listing were complete.
            chunk = self._attempt(prefix, lambda _: next(entries, None))

    def folders(self) -> "set[str]":
        """Return the names of the folders directly below the URL.

        The memory for the list is not limited, see `data_pipeline.storage.folder_listing`.
        """
        import obstore

        def read(client: Any) -> Any:
            return obstore.list_with_delimiter(client, self._prefix.rstrip("/") or None)

        found = self._request("", read)
        # Some servers ignore the delimiter, and list all objects.
        keys = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        names = (key.removeprefix(self._prefix).split("/") for key in keys)
        is_folder = set(found["common_prefixes"])
        return {
            parts[0]
            for key, parts in zip(keys, names, strict=True)
            if key.startswith(self._prefix) and (key in is_folder or len(parts) > 1) and parts[0]
        }

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; ignore missing objects.

        Raises:
            ObjectStoreError: an object cannot be deleted; other objects may have been deleted.
        """
        import obstore

        keys = {self._key(name): name for name in names}
        if self._scheme == "s3" and keys:
            self._request("", lambda client: obstore.delete(client, [*keys]))
            return
        for key, name in keys.items():
            with suppress(ObjectMissingError):
                self._request(name, partial(obstore.delete, paths=key))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_access": None, "_clients": {}, "_pid": None}

    def __repr__(self) -> str:
        return f"ObjectStore({str(self.url)!r})"

    def _put(self, name: str, data: bytes | memoryview, mode: Any) -> str:
        import obstore

        assert len(data) <= MAX_PUT_BYTES, f"{name}: {len(data):,} bytes"
        key = self._key(name)
        result = self._request(
            name,
            lambda client: obstore.put(client, key, data, mode=mode, use_multipart=False),
            len(data),
        )
        return self._etag(result)

    def _etag(self, meta: Any) -> str:
        return meta["version" if self._scheme == "gs" else "e_tag"] or ""

    def _chunks(self, result: Any, most: int) -> Iterator[bytes]:
        """Yield a response's body, of at most `most` bytes, as it arrives."""
        stated = result.range[1] - result.range[0]
        if stated > most:
            raise TooManyBytesError(f"{stated:,} bytes")
        size, start = 0, time.monotonic()
        for chunk in result.stream(min_chunk_size=1):
            size += len(chunk)
            if size > most:
                raise TooManyBytesError(f"at least {size:,} bytes")
            seconds = time.monotonic() - start
            if seconds > STALL_TIMEOUT_SECONDS + size / MIN_READ_BYTES_PER_SECOND:
                raise ObjectStoreError(
                    f"only {size:,} bytes have arrived in {seconds:.1f} s, expected at least "
                    f"{MIN_READ_BYTES_PER_SECOND:,} bytes per second"
                )
            yield chunk

    def _key(self, name: str) -> str:
        """Return the key of a name.

        Raises:
            ObjectStoreError: the name leads out of the prefix, or some stores do not accept it.
        """
        if not name or name.endswith("/") or _is_odd(name) or path_escape(name):
            raise ObjectStoreError(
                f"{visible_line(without_credentials(repr(name)))} is not the name of an object "
                f"below {self.url}"
            )
        return self._prefix + name

    def _request(self, name: str, send: Callable[[Any], _T], size: int = 0) -> _T:
        """Send a request; retry it if credentials have been renewed, or after a status 409."""
        delays = iter(_CONFLICT_DELAYS_SECONDS)
        last = time.monotonic() + CONNECT_TIMEOUT_SECONDS
        while True:
            try:
                return self._attempt(name, send, size)
            except ObjectAccessError:
                if not self._are_renewed():
                    raise
            except BusyError as error:
                delay = next(delays, None)
                if delay is None or time.monotonic() > last:
                    raise ObjectStoreError(*error.args) from None
                time.sleep(delay)

    def _attempt(self, name: str, send: Callable[[Any], _T], size: int = 0) -> _T:
        """Send a request once and translate its errors."""
        shown = self._shown(name)
        client, access = self._client(size, shown)
        try:
            return send(client)
        except TooManyBytesError:
            raise
        except ObjectStoreError as error:
            failure: ObjectStoreError = type(error)(f"{shown}: {error}")
        except BaseException as error:  # obstore's classes, FileNotFoundError and ValueError
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the file that a download writes
            if not isinstance(error, Exception) and not _is_panic(error):
                raise
            failure = failure_of(str(error), shown, self._scheme, access)
        # Raise it outside of the handlers, because a traceback would otherwise show the library's
        # error as the context.
        raise failure

    def _client(self, size: int, shown: str) -> tuple[Any, ObjectAccess]:
        """Return a client for requests with a body of `size` bytes; create it on first use."""
        _require_threads(shown)
        if self._pid != os.getpid():
            self._access, self._clients, self._pid = None, {}, os.getpid()
        if self._access is None:
            try:
                self._access = access_for(self._scheme, os.environ)
            except AccessError as error:
                raise ObjectAccessError(f"{shown}: {error}") from None
        access = self._access
        # Sizes are rounded up to a power of two, so that there are few clients.
        size = 0 if size <= _SMALL_PUT_BYTES else 1 << (size - 1).bit_length()
        if size not in self._clients:
            self._clients[size] = self._new_client(size, access, shown)
        return self._clients[size], access

    def _new_client(self, size: int, access: ObjectAccess, shown: str) -> Any:
        from obstore.store import AzureStore, GCSStore, S3Store

        connect, stall = CONNECT_TIMEOUT_SECONDS, STALL_TIMEOUT_SECONDS
        limits = {"read_timeout": stall, "timeout": _LONG_SECONDS}
        if size:  # the read timeout includes the time of an upload
            limits = {"timeout": stall + size / MIN_WRITE_BYTES_PER_SECOND}
        limits["connect_timeout"] = connect
        store: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[self._scheme]
        try:
            return store(
                self._bucket,
                config=access.config,
                client_options={
                    **{name: timedelta(seconds=limit) for name, limit in limits.items()},
                    **access.client,
                },
                # Timeouts are not retried, because they take at least as long as `retry_timeout`.
                retry_config={
                    "max_retries": _MAX_RETRIES,
                    "retry_timeout": timedelta(seconds=min(connect, stall)),
                    "backoff": {
                        "init_backoff": timedelta(seconds=_FIRST_RETRY_SECONDS),
                        "max_backoff": timedelta(seconds=_LONGEST_RETRY_SECONDS),
                        "base": 3,
                    },
                },
            )
        except BaseException as error:
            if not isinstance(error, Exception) and not _is_panic(error):
                raise
            failure = failure_of(str(error), shown, self._scheme, access)
        raise ObjectAccessError(*failure.args)

    def _are_renewed(self) -> bool:
        """Return True if the environment or profile has changed, and forget the old clients."""
        try:
            renewed = access_for(self._scheme, os.environ)
        except AccessError:
            return False
        if renewed == self._access:
            return False
        self._access, self._clients = None, {}
        return True

    def _shown(self, name: str) -> str:
        return visible_line(f"{self.url}/{name}".rstrip("/"))


def _is_panic(error: BaseException) -> bool:
    """Return whether Rust code has panicked; PyO3 raises a class that no module exports."""
    return type(error).__name__ == "PanicException"


def _oddity(path: str) -> str | None:
    """Return why a path of a URL would not be taken literally, or None if it would."""
    if found := re.search("[?#]", path):
        return f"a {found[0]!r} begins a query or fragment, which names of objects cannot have here"
    if path and "//" in f"/{path}/":
        return "it has two slashes in a row, or one at its end, between which there is no name"
    return "it has a control character, . or .." if _is_odd(path) else None


def _is_odd(path: str) -> bool:
    """Return True for paths that object stores or obstore would not take literally."""
    parts = path.split("/") if path else []
    return _CONTROL.search(path) is not None or any(part in ("", ".", "..") for part in parts)


def _require_threads(shown: str) -> None:
    """Check that obstore's threads, which its first request starts, run in this process."""
    global _user_of_obstore
    if _user_of_obstore is None:
        _user_of_obstore = os.getpid()
    elif _user_of_obstore != os.getpid():
        raise ObjectStoreError(
            f"{shown}: this process was forked from one that uses object stores, whose threads do "
            "not exist here. Start it by multiprocessing's method spawn or forkserver"
        )
