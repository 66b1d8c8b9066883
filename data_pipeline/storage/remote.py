"""Remote files: how http, https, s3 and gs are reached, and how long to wait for another try.

What a server says about the size of a file is not believed: bytes are counted as they come. Bodies
are taken as they are sent, never decompressed on the way, so that none is more than its own bytes.
"""

import io
import random
import time
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.callbacks import Callback

from data_pipeline.storage.passwords import SameOriginPassword, check_netrc, origin_of
from foundation.location import Location, without_credentials
from foundation.untrusted_text import logger_of

REMOTE_SCHEMES = ("http", "https", "s3", "gs")
RETRY_DELAYS_SECONDS = (0.5, 2.0, 8.0)
CONNECT_TIMEOUT_SECONDS = 10.0
STALL_TIMEOUT_SECONDS = 30.0  # longest wait for the next byte

logger = logger_of(__name__)
# A generator of its own: the global one's state belongs to whoever seeded it.
_jitter = random.SystemRandom()


def file_system(
    url: Location,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    stall_timeout_seconds: float = STALL_TIMEOUT_SECONDS,
) -> Any:
    """fsspec's file system for a URL of one of the REMOTE_SCHEMES.

    Ask for it each time: fsspec keeps one connection pool per process, and a pool that was made
    before a fork does not work after it.

    A password for http and https is read from the netrc file by aiohttp; s3fs and gcsfs read the
    environment.

    Raises:
        ImportError: s3fs or gcsfs is missing.
        LocationError: the netrc file cannot be read.
    """
    scheme = urlsplit(url).scheme
    assert scheme in REMOTE_SCHEMES, url
    options = {}
    if scheme.startswith("http"):
        # Imported here because it takes a third of a second, which local files never need.
        from aiohttp import ClientTimeout

        # aiohttp's own default would end every download after five minutes.
        timeout = ClientTimeout(
            total=None, connect=connect_timeout_seconds, sock_read=stall_timeout_seconds
        )
        check_netrc()
        client = {
            "timeout": timeout,
            "trust_env": True,  # proxies, and the netrc file
            "middlewares": (SameOriginPassword(origin_of(url)),),
            # Without these two, a body of some kilobytes may become gigabytes at once.
            "headers": {"Accept-Encoding": "identity"},
            "auto_decompress": False,
        }
        options = {"client_kwargs": client}
    return fsspec.filesystem(scheme, **options)


class TooManyBytesError(ValueError):
    """A file has more bytes than it may have.

    Attributes:
        found: how many, or how many at least.
    """

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


def read_at_most(source: Any, url: str, most: int) -> bytes:
    """A remote file of at most so many bytes; of a larger one, little more than that is read.

    Args:
        source: what `file_system` has given for the URL.

    Raises:
        TooManyBytesError: it is larger.
        Exception: of the backend.
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
    """Refuses what would make it larger than it may be."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._most:
            raise TooManyBytesError(f"at least {self._most + 1:,} bytes")
        return super().write(data)


class ByteLimit(Callback):
    """Ends a download into a file that becomes larger than it may; for `get_file` of fsspec."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self._most:
            raise TooManyBytesError(f"at least {self.value:,} bytes")


def error_reason(error: BaseException) -> str:
    """The name and the text of a library's error, without credentials of the URLs in it.

    A server may have redirected to a signed URL. Raise `from None` what is made of this: a
    traceback would show the text of the library's error again.
    """
    return without_credentials(f"{type(error).__name__}: {error}")


def wait_before_retry(delay_seconds: float, what: str, reason: object) -> None:
    """Sleeps for a random time near the delay, since all workers of a run miss a server at once."""
    wait_seconds = delay_seconds * _jitter.uniform(0.5, 1.5)
    said = without_credentials(f"{what} is tried again in {wait_seconds:.1f} s: {reason}")
    logger.warning("%s", said)
    time.sleep(wait_seconds)
