"""Who gets in: requests by whoever has the token, from pages of this server alone.

Other users of the machine can reach 127.0.0.1, and so can pages of other sites in the same browser.

- The address that is printed carries a token. A request that has it gets a cookie and is sent to
  the same address without it, so that it stays out of history, Referer and screenshots.
- The cookie is HttpOnly and SameSite=Strict: no script reads it, no other site's page sends it.
- The name of the host must be this machine's: a foreign name that resolves to 127.0.0.1 (DNS
  rebinding) would make another site's page one of ours.
- What changes anything, starting a look, must come from a page of ours, by its Origin.
- A page may load from its own server alone: see `transloom.web.headers`.
"""

import ipaddress
import secrets
import socket
from hmac import compare_digest
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from transloom.web.connections import admit

TOKEN = "token"
SAFE_METHODS = ("GET", "HEAD")


class Site:
    """The names of a server, by which its own pages are told from those of others."""

    def __init__(self, host: str) -> None:
        own = {"localhost", host.lower()}
        if not is_loopback(host):
            own |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._own_names = own

    def is_asked_by_own_name(self, request: web.Request) -> bool:
        """Whether a request names this machine, or a plain address."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1:
            return False
        try:
            name = urlsplit(f"//{hosts[0]}").hostname or ""
        except ValueError:
            return False
        return name in self._own_names or _is_address(name)

    @staticmethod
    def is_asked_by_another_site(request: web.Request) -> bool:
        """Whether a browser says that another site's page asks, other than by a link to here."""
        return request.headers.get("Sec-Fetch-Site", "none") == "cross-site" and not (
            request.headers.get("Sec-Fetch-Mode") == "navigate" and request.method == "GET"
        )

    @staticmethod
    def is_own_origin(request: web.Request) -> bool:
        """Whether the page that asks has the address that it asks."""
        origins = request.headers.getall("Origin", [])
        if len(origins) != 1:
            return False
        try:
            origin = urlsplit(origins[0])
        except ValueError:
            return False
        return origin.scheme in ("http", "https") and origin.netloc == request.headers.get("Host")


class TokenForCookie:
    """A token in an address that becomes a cookie."""

    def __init__(self, port: int, token: str) -> None:
        self.token = token
        self._cookie = f"transloom-{port}"  # cookies are of a host, whatever the port
        self._session = secrets.token_urlsafe(32)

    def has_token(self, request: web.Request) -> bool:
        """Whether a request that changes nothing has the token in its address."""
        return request.method in SAFE_METHODS and same(request.query.get(TOKEN, ""), self.token)

    def has_cookie(self, request: web.Request) -> bool:
        return same(request.cookies.get(self._cookie, ""), self._session)

    def let_in(self, request: web.Request) -> web.Response:
        """The same address without the token, and a cookie instead."""
        rest = request.rel_url.without_query_params(TOKEN)
        # A path of two slashes would be another host's address.
        place = "/" + str(rest).lstrip("/\\")
        answer = web.Response(status=303, headers={"Location": place})
        answer.set_cookie(self._cookie, self._session, path="/", httponly=True, samesite="Strict")
        return answer


class Doors:
    """The middleware that stands before every request to the dashboard.

    Attributes:
        token: for the address that is printed.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.token = secrets.token_urlsafe(32)
        self._entrance = TokenForCookie(port, self.token)
        self._site = Site(host)

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if refusal := self._refusal(request):
                return refusal
            admit(request)
            if TOKEN in request.query:
                return self._entrance.let_in(request)
            return await handler(request)

        return guard

    def _refusal(self, request: web.Request) -> web.Response | None:
        if not self._site.is_asked_by_own_name(request):
            return _refused(421, "this server is asked by another name than its machine has")
        if self._site.is_asked_by_another_site(request):
            return _refused(403, "a page of another site asks")
        if request.method not in SAFE_METHODS and not self._site.is_own_origin(request):
            return _refused(403, "only the dashboard's own page may ask for that")
        if TOKEN in request.query:
            if self._entrance.has_token(request):
                return None
        elif self._entrance.has_cookie(request):
            return None
        return _refused(
            401, "open the address that `transloom dashboard` has printed, with its token"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine's users can reach a server there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(name: str) -> bool:
    """Whether a host's name is a plain IP address, which no DNS can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def same(given: str, expected: str) -> bool:
    """Whether a secret is the right one, in a time that tells nothing of it."""
    return compare_digest(given.encode(errors="replace"), expected.encode())


def _refused(status: int, why: str) -> web.Response:
    return web.Response(status=status, text=f"transloom dashboard: {why}\n")
