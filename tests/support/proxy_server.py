"""Proxy that reaches no server, as a company's proxy does for loopback addresses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.quiet_server import QuietHandler, QuietServer


class ProxyServer(QuietServer):
    """Server at 127.0.0.1 that answers each request with a status and a web page.

    Attributes:
        requests: the targets of the requests.
    """

    def __init__(self, status: int = 503) -> None:
        super().__init__(_Refusal)
        self.status = status
        self.requests: list[str] = []

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Refusal(QuietHandler):
    server: ProxyServer

    def _refuse(self) -> None:
        self.body()
        self.server.requests.append(self.path)
        self.send_error(self.server.status, explain="from the proxy")

    def do_GET(self) -> None:
        self._refuse()

    def do_POST(self) -> None:
        self._refuse()


@contextmanager
def proxy_of_environment(status: int = 503) -> Iterator[ProxyServer]:
    """Let programs of this process use a proxy that reaches no server, by http_proxy."""
    with ProxyServer(status) as proxy, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        # set them so that they are restored, because the code may change them
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, "")
            os.environ.pop(name)
        patch.setenv("http_proxy", f"http://me:secret@{proxy.netloc}")
        yield proxy
