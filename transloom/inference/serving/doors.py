"""Who gets in: whoever has the token, where there is one, and pages of this server alone.

- Programs send the token as `Authorization: Bearer …`. A person opens the address with the token,
  which becomes a cookie; see `transloom.web.doors`.
- A browser's request from a page of another site is refused, with and without a token.
- Without a token the name of the host must be this machine's: else another site's page could become
  one of ours by a name that resolves to this address (DNS rebinding).
- Whether the server lives and takes requests, everybody may ask: those who watch it have no token.
"""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from transloom.inference.serving.messages import Problem
from transloom.web.connections import admit
from transloom.web.doors import SAFE_METHODS, TOKEN, Site, TokenForCookie, same

OPEN_PATHS = ("/healthz", "/readyz")
BEARER = "Bearer "


class ServingDoors:
    """The middleware that stands before every request."""

    def __init__(self, port: int, host: str, token: str | None) -> None:
        self._site = Site(host)
        self._entrance = TokenForCookie(port, token) if token is not None else None

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in OPEN_PATHS:
                return await handler(request)
            if refusal := self._refusal(request):
                return refusal
            if self._entrance:
                admit(request)
                if TOKEN in request.query:
                    return self._entrance.let_in(request)
            return await handler(request)

        return guard

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._entrance is None and not self._site.is_asked_by_own_name(request):
            return _refused(421, "this server is asked by another name than its machine has")
        if self._site.is_asked_by_another_site(request):
            return _refused(403, "a page of another site asks")
        by_browser = request.method not in SAFE_METHODS and "Origin" in request.headers
        if by_browser and not self._site.is_own_origin(request):
            return _refused(403, "a page of another site asks")
        if self._entrance is None or self._has_token(request, self._entrance):
            return None
        refusal = _refused(
            401, "a token is needed: send it as Authorization: Bearer …, or open /?token=…"
        )
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    @staticmethod
    def _has_token(request: web.Request, entrance: TokenForCookie) -> bool:
        if TOKEN in request.query:
            return entrance.has_token(request)
        sent = request.headers.get("Authorization", "")
        if sent.startswith(BEARER):
            return same(sent.removeprefix(BEARER), entrance.token)
        return entrance.has_cookie(request)


def _refused(status: int, why: str) -> web.Response:
    body = Problem(kind="not_allowed", problem=why).model_dump_json().encode()
    return web.Response(status=status, body=body, content_type="application/json")
