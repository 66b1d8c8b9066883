"""Remote files: how http, https, s3 and gs are reached, and how long to wait for another try.

URL ──▶ is there a password for its host in the netrc file? ──▶ fsspec's file system
                                                                │ redirected elsewhere
other hosts get no password; errors are said without what ◀─────┘
a signed URL carries
"""

import netrc
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec

from data_pipeline.errors import LocationError
from data_pipeline.location import Location, without_credentials
from data_pipeline.strangers_text import logger_of

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse

REMOTE_SCHEMES = ("http", "https", "s3", "gs")
RETRY_DELAYS_SECONDS = (0.5, 2.0, 8.0)
CONNECT_TIMEOUT_SECONDS = 10.0
STALL_TIMEOUT_SECONDS = 30.0  # longest wait for the next byte

PASSWORDS = "~/.netrc or the file that NETRC names"

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
            "middlewares": (PasswordStays(_origin(url)),),
        }
        options = {"client_kwargs": client}
    return fsspec.filesystem(scheme, **options)


@dataclass(frozen=True)
class PasswordStays:
    """Sends a password to the origin that a location names, and to no other: aiohttp's middleware.

    aiohttp looks into the netrc file again after a redirect, by the host alone (3.14). So the entry
    `default`, or that of the same host, would go to any server, port and scheme that a server
    redirects to.
    """

    origin: str

    async def __call__(
        self,
        request: "ClientRequest",
        send: "Callable[[ClientRequest], Awaitable[ClientResponse]]",
    ) -> "ClientResponse":
        if _origin(str(request.url)) != self.origin:
            request.headers.popall("Authorization", None)
        return await send(request)


def check_netrc() -> None:
    """Checks that the file that NETRC names, or else ~/.netrc, can be read.

    aiohttp would log a wrong word of it, which may be a password, and go on without one.

    Raises:
        LocationError: it cannot; the message has the line, and nothing that is in it.
    """
    named = os.environ.get("NETRC") or None
    path = Path(named) if named else Path.home() / ".netrc"
    if not named and not path.is_file():
        return
    try:
        netrc.netrc(named)  # without a name, it looks at owner and mode too
    except netrc.NetrcParseError as error:
        problem = f"its line {error.lineno} is not of the form machine HOST login USER password …"
        if error.lineno is None:
            problem = "it has to be yours, and readable by you alone (chmod 600)"
        raise LocationError(
            f"{path} cannot be read: {problem}. Correct it, or name another file by NETRC."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise LocationError(
            f"{path}, the file with passwords for http and https, cannot be read ({reason}). "
            "Correct NETRC, which names it, or unset it."
        ) from None


def said_reason(error: BaseException) -> str:
    """The name and the text of a library's error, without credentials of the URLs in it.

    A server may have redirected to a signed URL. Raise `from None` what is made of this: a
    traceback would show the text of the library's error again.
    """
    return without_credentials(f"{type(error).__name__}: {error}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def wait_before_retry(delay_seconds: float, what: str, reason: object) -> None:
    """Sleeps for a random time near the delay, since all workers of a run miss a server at once."""
    wait_seconds = delay_seconds * _jitter.uniform(0.5, 1.5)
    said = without_credentials(f"{what} is tried again in {wait_seconds:.1f} s: {reason}")
    logger.warning("%s", said)
    time.sleep(wait_seconds)
