"""An HTTP server that asks for a password, and one that sends its clients elsewhere.

with GuardedServer({"a.txt": b"text"}, password="user:secret") as server:
    server.moved["b.txt"] = "http://other/b.txt?sig=secret"
    assert server.shown == ["Basic dXNlcjpzZWNyZXQ="]     # an item for each request
"""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit


class GuardedServer:
    """Serves files on a free port of this host, from threads of this process."""

    def __init__(self, files: dict[str, bytes], password: str | None = None) -> None:
        """password: USER:PASSWORD that each request has to show; None: nobody has to."""
        self.files = files
        self.moved: dict[str, str] = {}  # by file, the address to which its clients are sent
        self.asked: list[str] = []  # the path and query of each request
        self.shown: list[str | None] = []  # the Authorization of each request
        self.wanted = password and f"Basic {base64.b64encode(password.encode()).decode()}"
        handler = type("Handler", (_Handler,), {"guarded": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    guarded: GuardedServer

    def do_GET(self) -> None:
        guarded = self.guarded
        name = unquote(urlsplit(self.path).path).strip("/")
        shown = self.headers.get("Authorization")
        guarded.asked.append(self.path)
        guarded.shown.append(shown)
        if guarded.wanted not in (None, shown):
            self.send_error(401)
        elif name in guarded.moved:
            self.send_response(302)
            self.send_header("Location", guarded.moved[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name in guarded.files:
            self.send_response(200)
            self.send_header("Content-Length", str(len(guarded.files[name])))
            self.end_headers()
            self.wfile.write(guarded.files[name])
        else:
            self.send_error(403)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""
