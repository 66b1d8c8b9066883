"""HTTP servers in threads of this process that print nothing, even if clients disconnect.

class Handler(QuietHandler):
    def do_GET(self) -> None:
        self.send(200, b"text")

with QuietServer(Handler) as server:
    urlopen(server.url)
"""

import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class InThread(socketserver.BaseServer):
    """Server that runs in a thread during a context.

    Attributes:
        closing: set when the server ends, for handlers that wait.
    """

    def __enter__(self) -> Self:
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        self._thread.join()


class QuietServer(InThread, ThreadingHTTPServer):
    """Server at a free port of 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no error, because tests disconnect clients on purpose."""


class QuietHandler(BaseHTTPRequestHandler):
    """Handler that prints nothing."""

    server: Any

    def body(self) -> bytes:
        """Read the body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a complete response."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
