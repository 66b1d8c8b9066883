"""Remote files: access through http, https, s3 and gs, and delays before retries.

The file size that a server states is not trusted: bytes are counted as they arrive. Response bodies
are stored as sent and never decompressed, so that a small body cannot become a large one.
"""

import io
import random
import time
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.callbacks import Callback

from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.passwords import SameOriginPassword, check_netrc, origin_of
from foundation.location import Location, without_credentials
from foundation.untrusted_text import logger_of

REMOTE_SCHEMES = ("http", "https", "s3", "gs")
RETRY_DELAYS_SECONDS = (0.5, 2.0, 8.0)
CONNECT_TIMEOUT_SECONDS = 10.0
STALL_TIMEOUT_SECONDS = 30.0  # longest wait for the next byte

logger = logger_of(__name__)
# A private generator: the global generator's state belongs to the code that seeded it.
_jitter = random.SystemRandom()


def file_system(
    url: Location,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    stall_timeout_seconds: float = STALL_TIMEOUT_SECONDS,
) -> Any:
    """Return fsspec's file system for a URL with one of the REMOTE_SCHEMES.

    Call this for each use: fsspec keeps one connection pool per process, and a pool created before
    a fork does not work after it.

    aiohttp reads a password for http and https from the netrc file; s3fs and gcsfs read the
    environment.

    Raises:
        ImportError: s3fs or gcsfs is missing.
        LocationError: the netrc file cannot be read.
    """
    scheme = urlsplit(url).scheme
    assert scheme in REMOTE_SCHEMES, url
    options = {}
    if scheme.startswith("http"):
        # Importing aiohttp takes a third of a second, and local files do not need it.
        from aiohttp import ClientTimeout

        # aiohttp's default would end every download after five minutes.
        timeout = ClientTimeout(
            total=None, connect=connect_timeout_seconds, sock_read=stall_timeout_seconds
        )
        check_netrc()
        client = {
            "timeout": timeout,
            "trust_env": True,  # for proxies and the netrc file
            "middlewares": (SameOriginPassword(origin_of(url)),),
            # Without these two options, a body of some kilobytes may expand to gigabytes in memory.
            "headers": {"Accept-Encoding": "identity"},
            "auto_decompress": False,
        }
        options = {"client_kwargs": client}
    return fsspec.filesystem(scheme, **options)


def read_at_most(source: Any, url: str, most: int) -> bytes:
    """Return the content of a remote file; stop reading soon after `most` bytes.

    Args:
        source: the result of `file_system` for the URL.

    Raises:
        TooManyBytesError: the file has more than `most` bytes.
        Exception: errors of the backend.
    """
    if urlsplit(url).scheme.startswith("http"):
        buffer = _LimitedBuffer(most)
        source.get_file(url, buffer)
        return buffer.getvalue()
    with source.open(url, "rb") as file:
        data: bytes = file.read(most + 1)
    if len(data) > most:
        raise TooManyBytesError(f"at least {most + 1:,} bytes")
    return data


class _LimitedBuffer(io.BytesIO):
    """Buffer that refuses writes beyond its limit."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._most:
            raise TooManyBytesError(f"at least {self._most + 1:,} bytes")
        return super().write(data)


class ByteLimit(Callback):
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
