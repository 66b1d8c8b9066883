"""Passwords for http and https, from the netrc file and only for the server that a location names.

aiohttp sends the password that the netrc file has for the URL's host. If the server redirects to
another origin, the request to that origin has no password.
"""

import netrc
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from foundation.errors import LocationError
from foundation.home import home_folder

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse

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
    except OSError:  # a home that this user cannot enter
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
