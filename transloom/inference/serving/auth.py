"""Authentication of the server's requests; see `transloom.web.auth` for the rules.

The token is optional. Without one, all users of the machine may use the server.
"""

from aiohttp import web

from transloom.inference.serving.messages import Problem
from transloom.web.auth import RequestGuard


class ServingGuard(RequestGuard):
    """Middleware that authenticates requests, with errors in JSON."""

    open_paths = ("/healthz", "/readyz")  # monitoring systems send no token
    for_programs = True
    token_remedy = "a token is needed: send it as Authorization: Bearer …, or open /?token=…"

    def refused(self, status: int, why: str) -> web.Response:
        body = Problem(kind="not_allowed", problem=why).model_dump_json().encode()
        refusal = web.Response(status=status, body=body, content_type="application/json")
        if status == 401:
            refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal
