"""Passwords for http and https: from the netrc file, for the server that a location names alone.

URL ──▶ is there a password for its host in the netrc file? ──▶ aiohttp sends it
                                                                 │ redirected elsewhere
                                        other origins get none ◀─┘
"""

import netrc
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from foundation.errors import LocationError

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse

PASSWORDS = "~/.netrc or the file that NETRC names"


@dataclass(frozen=True)
class SameOriginPassword:
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
        if origin_of(str(request.url)) != self.origin:
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


def origin_of(url: str) -> str:
    """What a password is for: the scheme, the host and the port of a URL."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"
