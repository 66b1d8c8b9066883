"""Remote files: access through http and https, and downloads of whole files by URL.

s3, gs and az are read by `object_store`. The file size that a server states is not trusted: bytes
are counted as they arrive. Response bodies are stored as sent and never decompressed, so that a
small body cannot become a large one.

aiohttp sends the password that the netrc file has for the URL's host. If the server redirects to
another origin, the request to that origin has no password.
"""

import io
import netrc
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
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
from foundation.errors import LocationError
from foundation.home import home_folder
from foundation.location import Location, without_credentials
from foundation.proxies import bypass_proxies, proxy_hint
from foundation.untrusted_text import logger_of

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse

logger = logger_of(__name__)

REMOTE_SCHEMES = ("http", "https", *OBJECT_SCHEMES)
RETRY_DELAYS_SECONDS = (0.5, 2.0, 8.0)
MAX_DISK_SHARE = 0.95  # maximum share of the free bytes that a download may take

# A private generator: the global generator's state belongs to the code that seeded it.
_jitter = random.SystemRandom()
PASSWORDS = "~/.netrc or the file that NETRC names"


@dataclass(frozen=True)
class SameOriginPassword:
    """Aiohttp middleware that sends a password only to the origin of a location.

    After a redirect, aiohttp (3.14) looks up the netrc file again, by host only. Without this
    class, a server could therefore redirect to any server, port and scheme, which would get the
    password of the entry `default`, or of the entry for that host.
    """

    origin: str

    async def __call__(
        self,
        request: "ClientRequest",
        send: "Callable[[ClientRequest], Awaitable[ClientResponse]]",
    ) -> "ClientResponse":
        if origin_of(str(request.url)) != self.origin:
            request.headers.popall("Authorization", None)
        return await send(request)


def check_netrc() -> None:
    """Check that the netrc file can be read: the one that NETRC names, or else ~/.netrc.

    Without this check, aiohttp would log an invalid word of the file, which may be a password, and
    continue without a password.

    Raises:
        LocationError: the file cannot be read; the message has the number of the invalid line, but
            none of the file's content.
    """
    named = os.environ.get("NETRC") or None
    path = Path(named) if named else home_folder() / ".netrc"
    try:
        if not named and not path.is_file():
            return
    except OSError:  # the home folder is not accessible
        return
    try:
        netrc.netrc(named)  # if `named` is None, this also checks owner and mode
    except netrc.NetrcParseError as error:
        problem = f"line {error.lineno} does not have the form machine HOST login USER password …"
        if error.lineno is None:
            problem = "it must belong to you and be readable only by you (chmod 600)"
        raise LocationError(
            f"{path} cannot be read: {problem}. Correct it, or name another file with NETRC."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise LocationError(
            f"{path}, the file with passwords for http and https, cannot be read ({reason}). "
            "Correct the path in NETRC, or unset it."
        ) from None


def origin_of(url: str) -> str:
    """Return the origin of a URL, which is its scheme, host and port; passwords are per origin."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


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
        "trust_env": True,  # use proxies and the netrc file
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
