"""HTTP server that requires a password, or redirects its clients to other addresses.

with GuardedServer({"a.txt": b"text"}, password="user:secret") as server:
    server.moved["b.txt"] = "http://other/b.txt?sig=secret"
    assert server.shown == ["Basic dXNlcjpzZWNyZXQ="]     # an item for each request
"""

import base64
from urllib.parse import unquote, urlsplit

from support.quiet_server import QuietHandler, QuietServer


class GuardedServer(QuietServer):
    """Server of some files."""

    def __init__(self, files: dict[str, bytes], password: str | None = None) -> None:
        """password: USER:PASSWORD that each request must contain; None: no password is needed."""
        super().__init__(_Handler)
        self.files = files
        # for each moved file, the address to which clients are redirected
        self.moved: dict[str, str] = {}
        self.asked: list[str] = []  # path and query of each request
        self.shown: list[str | None] = []  # Authorization header of each request
        self.wanted = password and f"Basic {base64.b64encode(password.encode()).decode()}"


class _Handler(QuietHandler):
    server: GuardedServer

    def do_GET(self) -> None:
        guarded = self.server
        name = unquote(urlsplit(self.path).path).strip("/")
        shown = self.headers.get("Authorization")
        guarded.asked.append(self.path)
        guarded.shown.append(shown)
        if guarded.wanted not in (None, shown):
            self.send_error(401)
        elif name in guarded.moved:
            self.send(302, Location=guarded.moved[name])
        elif name in guarded.files:
            self.send(200, guarded.files[name])
        else:
            self.send_error(403)
