"""Authentication of requests by a token, and rejection of requests from other sites' pages.

Other users of the machine can reach 127.0.0.1, and so can pages of other sites in the same browser.

- The printed address carries a token. A request with the token receives a cookie, and is redirected
  to the same address without the token. This keeps the token out of history, Referer and
  screenshots. Servers for programs also accept the token as `Authorization: Bearer …`.
- The cookie is HttpOnly and SameSite=Strict: no script can read it, and pages of other sites do not
  send it.
- The Host header must name this machine. Otherwise another site could make its name resolve to
  127.0.0.1 (DNS rebinding), and its page would have the same origin as the server. Servers for
  programs accept any host name if they require a token.
- A request that changes anything must come from the server's own page, according to its Origin.
- A page loads resources only from its own server: see `transloom.web.connections.HEADERS`.
"""

import ipaddress
import secrets
import socket
from contextlib import suppress
from hmac import compare_digest
from typing import ClassVar
from urllib.parse import SplitResult, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from transloom.web.connections import admit

TOKEN = "token"
BEARER = "Bearer "
SAFE_METHODS = ("GET", "HEAD")
OTHER_SITE = "the request comes from a page of another site"


class SessionAuth:
    """Token in a server's address, and the session cookie that replaces it."""

    def __init__(self, port: int, token: str) -> None:
        self.token = token
        self._cookie = f"transloom-{port}"  # browsers send a cookie to all ports of a host
        self._session = secrets.token_urlsafe(32)

    def has_token(self, request: web.Request) -> bool:
        """Return whether a request has the token in its address and is safe, such as GET."""
        return request.method in SAFE_METHODS and same(request.query.get(TOKEN, ""), self.token)

    def has_cookie(self, request: web.Request) -> bool:
        return same(request.cookies.get(self._cookie, ""), self._session)

    def start_session(self, request: web.Request) -> web.Response:
        """Set the session cookie, and redirect to the same address without the token."""
        rest = request.rel_url.without_query_params(TOKEN)
        # A browser would read a path with two leading slashes as the address of another host.
        place = "/" + str(rest).lstrip("/\\")
        answer = web.Response(status=303, headers={"Location": place})
        answer.set_cookie(self._cookie, self._session, path="/", httponly=True, samesite="Strict")
        return answer


class RequestGuard:
    """Middleware that checks all requests to a server; each kind of server has a subclass.

    Attributes:
        open_paths: paths that need no authentication.
        for_programs: True if programs use the server in addition to browsers. Programs send no
            Origin, and send the server's token, if it has one, as a bearer token. Such a server
            accepts any host name if it has a token.
        foreign_change: error message for a request that would change something and does not come
            from the server's page.
        token_remedy: error message for a request without the token.
    """

    open_paths: ClassVar[tuple[str, ...]] = ()
    for_programs: ClassVar[bool] = False
    foreign_change: ClassVar[str] = OTHER_SITE
    token_remedy: ClassVar[str]

    def __init__(self, port: int, host: str, token: str | None) -> None:
        self._own_names = {"localhost", host.lower()}
        if not is_loopback(host):
            self._own_names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._session = SessionAuth(port, token) if token is not None else None

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in self.open_paths:
                return await handler(request)
            if refusal := self._refusal(request):
                return refusal
            if self._session:
                admit(request)
                if TOKEN in request.query:
                    return self._session.start_session(request)
            return await handler(request)

        return guard

    def refused(self, status: int, why: str) -> web.Response:
        """Return the response to a refused request, in the server's error format."""
        raise NotImplementedError

    def _refusal(self, request: web.Request) -> web.Response | None:
        needs_own_name = self._session is None or not self.for_programs
        if needs_own_name and not self._has_own_host(request):
            return self.refused(421, "the Host header does not name this machine")
        if _is_cross_site(request):
            return self.refused(403, OTHER_SITE)
        by_page = "Origin" in request.headers or not self.for_programs
        changes = request.method not in SAFE_METHODS
        if changes and by_page and not _is_own_origin(request):
            return self.refused(403, self.foreign_change)
        if self._session is None or self._has_token(request, self._session):
            return None
        return self.refused(401, self.token_remedy)

    def _has_own_host(self, request: web.Request) -> bool:
        """Return whether a request's Host is a name of this machine or an IP address."""
        host = _url_in(request, "Host", "//")
        if host is None:
            return False
        name = host.hostname or ""
        return name in self._own_names or _address(name) is not None

    def _has_token(self, request: web.Request, session: SessionAuth) -> bool:
        if TOKEN in request.query:
            return session.has_token(request)
        sent = request.headers.get("Authorization", "")
        if self.for_programs and sent.startswith(BEARER):
            return same(sent.removeprefix(BEARER), session.token)
        return session.has_cookie(request)


class PageGuard(RequestGuard):
    """Middleware that checks all requests to the dashboard, with a random token.

    Attributes:
        token: the token in the printed address.
    """

    foreign_change = "only the dashboard's own page may request this"
    token_remedy = "open the address with the token that `transloom dashboard` printed"

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.token = secrets.token_urlsafe(32)
        super().__init__(port, host, self.token)

    def refused(self, status: int, why: str) -> web.Response:
        return web.Response(status=status, text=f"transloom dashboard: {why}\n")


def is_loopback(host: str) -> bool:
    """Return whether only users of this machine can reach a server that listens on this host."""
    address = _address(host)
    return address.is_loopback if address else host.lower() == "localhost"


def _is_cross_site(request: web.Request) -> bool:
    """Return whether a page of another site sent a request, except by following a plain link.

    The browser reports this in the Sec-Fetch headers.
    """
    return request.headers.get("Sec-Fetch-Site", "none") == "cross-site" and not (
        request.headers.get("Sec-Fetch-Mode") == "navigate" and request.method == "GET"
    )


def _is_own_origin(request: web.Request) -> bool:
    """Return whether a request comes from a page of the server that receives the request."""
    origin = _url_in(request, "Origin")
    if origin is None or origin.scheme not in ("http", "https"):
        return False
    return origin.netloc == request.headers.get("Host")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host that is an IP address, which no DNS can redirect; None if it is a name."""
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    return None


def _url_in(request: web.Request, header: str, before: str = "") -> SplitResult | None:
    """Return the URL in a header; None if the header is missing, repeated or malformed.

    Args:
        before: the beginning of the URL, which the header lacks.
    """
    values = request.headers.getall(header, [])
    with suppress(ValueError):
        return urlsplit(before + values[0]) if len(values) == 1 else None
    return None


def same(given: str, expected: str) -> bool:
    """Compare a secret with the expected one in constant time."""
    return compare_digest(given.encode(errors="replace"), expected.encode())
