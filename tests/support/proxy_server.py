"""A proxy that reaches nobody, as that of a company does for other machines' loopback addresses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from threading import Thread
from typing import Any

import pytest

from support.quiet_server import QuietServer


class ProxyServer(QuietServer):
    """Server at 127.0.0.1 that answers each request with a status and a web page.

    Attributes:
        requests: the targets of the requests.
    """

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Refusal)
        self.status = status
        self.requests: list[str] = []

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Refusal(BaseHTTPRequestHandler):
    server: ProxyServer

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(self.path)
        self.send_error(self.server.status, explain="from the proxy")

    def do_GET(self) -> None:
        self._refuse()

    def do_POST(self) -> None:
        self._refuse()

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def refusing_server(status: int = 503) -> Iterator[ProxyServer]:
    server = ProxyServer(status)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def proxy_of_environment(status: int = 503) -> Iterator[ProxyServer]:
    """Let programs of this process use a proxy that reaches nobody, by its usual variable."""
    with refusing_server(status) as proxy, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        for name in ("no_proxy", "NO_PROXY"):  # the code may set them; restored afterwards
            patch.setenv(name, "")
            os.environ.pop(name)
        patch.setenv("http_proxy", f"http://me:secret@{proxy.netloc}")
        yield proxy
