"""Remote files: access through http and https, and downloads of whole files by URL.

s3, gs and az are read by `object_store`. The file size that a server states is not trusted: bytes
are counted as they arrive. Response bodies are stored as sent and never decompressed, so that a
small body cannot become a large one.
"""

import io
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.callbacks import Callback

from data_pipeline.errors import CorpusError
from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.object_errors import ObjectAccessError
from data_pipeline.storage.object_store import (
    CONNECT_TIMEOUT_SECONDS,
    OBJECT_SCHEMES,
    STALL_TIMEOUT_SECONDS,
    ObjectStore,
)
from data_pipeline.storage.passwords import PASSWORDS, SameOriginPassword, check_netrc, origin_of
from foundation.errors import LocationError
from foundation.location import Location, without_credentials
from foundation.proxies import bypass_proxies, proxy_hint
from foundation.untrusted_text import logger_of

logger = logger_of(__name__)

REMOTE_SCHEMES = ("http", "https", *OBJECT_SCHEMES)
RETRY_DELAYS_SECONDS = (0.5, 2.0, 8.0)
MAX_DISK_SHARE = 0.95  # maximum share of the free bytes that a download may take

# A private generator: the global generator's state belongs to the code that seeded it.
_jitter = random.SystemRandom()


def read_over_http(url: Location, most: int) -> bytes:
    """Return the content of a file on a web server; stop reading soon after `most` bytes.

    Raises:
        TooManyBytesError: the file has more than `most` bytes.
        LocationError: the netrc file cannot be read.
        Exception: errors of fsspec and aiohttp.
    """
    buffer = _LimitedBuffer(most)
    _web(url).get_file(url, buffer)
    return buffer.getvalue()


def download_over_http(url: Location, path: Path, most: int) -> None:
    """Write the content of a file on a web server to `path`; stop soon after `most` bytes.

    Raises:
        Exception: as in `read_over_http`.
    """
    _web(url).get_file(url, str(path), callback=_ByteLimit(most))


def _web(url: Location) -> Any:
    """Return fsspec's file system for http and https.

    Call this for each use: fsspec keeps one connection pool per process, and a pool created before
    a fork does not work after it.
    """
    # Importing aiohttp takes a third of a second, and local files do not need it.
    from aiohttp import ClientTimeout

    # aiohttp's default would end every download after five minutes.
    timeout = ClientTimeout(
        total=None, connect=CONNECT_TIMEOUT_SECONDS, sock_read=STALL_TIMEOUT_SECONDS
    )
    check_netrc()
    bypass_proxies(url)
    client = {
        "timeout": timeout,
        "trust_env": True,  # for proxies and the netrc file
        "middlewares": (SameOriginPassword(origin_of(url)),),
        # Without these two options, a body of some kilobytes may expand to gigabytes in memory.
        "headers": {"Accept-Encoding": "identity"},
        "auto_decompress": False,
    }
    return fsspec.filesystem("http", client_kwargs=client)


class _LimitedBuffer(io.BytesIO):
    """Buffer that refuses writes beyond its limit."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._most:
            raise TooManyBytesError(f"at least {self._most + 1:,} bytes")
        return super().write(data)


class _ByteLimit(Callback):
    """Callback for fsspec's `get_file` that aborts a download beyond a limit."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self._most:
            raise TooManyBytesError(f"at least {self.value:,} bytes")


def error_reason(error: BaseException) -> str:
    """Return the name and text of a library's error, without credentials in its URLs.

    If a server has redirected to a signed URL, the text contains a credential. Raise the resulting
    error `from None`, because a traceback would otherwise show the library's error unchanged.
    """
    return without_credentials(f"{type(error).__name__}: {error}")


def wait_before_retry(delay_seconds: float, what: str, reason: object) -> None:
    """Sleep for the delay with random jitter, so that workers do not retry simultaneously."""
    wait_seconds = delay_seconds * _jitter.uniform(0.5, 1.5)
    said = without_credentials(f"Retrying {what} in {wait_seconds:.1f} s: {reason}")
    logger.warning("%s", said)
    time.sleep(wait_seconds)


def download(url: str, path: Path) -> None:
    """Download a file to `path`.

    The size of the file is unknown. The download stops before the disk is full, in case the server
    never stops sending.

    Raises:
        CorpusError: the download has failed; the message has the remedy.
        LocationError: the URL carries a credential or names no object, or the netrc file cannot be
            read.
    """
    fetch = _fetch_of(Location(url))
    most = int(shutil.disk_usage(path.parent).free * MAX_DISK_SHARE)
    for delay in (*RETRY_DELAYS_SECONDS, None):
        try:
            fetch(path, most)
            return
        except TooManyBytesError as error:
            raise CorpusError(
                f"{url} does not fit on the disk of {path.parent}: expected at most {most:,} "
                f"bytes, {MAX_DISK_SHARE:.0%} of the free space, found {error.found}. Free disk "
                "space, or name another folder with data.cache=FOLDER."
            ) from error
        except LocationError:
            raise
        # Each backend raises different exceptions.
        except Exception as error:
            reason = error_reason(error)
            if delay is None or not _is_transient(error):
                raise CorpusError(
                    f"{url} cannot be downloaded ({reason}{proxy_hint(url)}). Check the address, "
                    f"the network{_credentials_of(url)}; or put the file into a folder and name "
                    "it with data.mirror=FOLDER."
                ) from None
        wait_before_retry(delay, url, reason)


def _fetch_of(url: Location) -> Callable[[Path, int], None]:
    """Return the function that tries once to download a URL to a path, up to a number of bytes."""
    scheme = urlsplit(url).scheme
    if scheme not in REMOTE_SCHEMES:
        raise CorpusError(
            f"{url} has the scheme {scheme!r}, expected one of file, {', '.join(REMOTE_SCHEMES)}. "
            "Correct the location, or download the file and give its path."
        )
    if scheme in OBJECT_SCHEMES:
        store, name = ObjectStore.of_object(url)
        return partial(store.download, name)
    return partial(download_over_http, url)


def _credentials_of(url: str) -> str:
    if urlsplit(url).scheme in OBJECT_SCHEMES:
        return " and the credentials in the environment"
    return f" and, if the server requires a password, {PASSWORDS}"


def _is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in (408, 429)
    lasting = FileNotFoundError | PermissionError | ObjectAccessError | ValueError
    return not isinstance(error, lasting)
