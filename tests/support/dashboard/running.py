"""Dashboard in a thread of the test's process, and raw requests to it."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel

from transloom.cli.dashboard import COMMAND_LINE
from transloom.observe.dashboard.inspections import inspection_command
from transloom.observe.dashboard.runs_folder import RunsFolder
from transloom.observe.dashboard.server import Dashboard
from transloom.observe.dashboard.table import RunsTable
from transloom.web.auth import PageGuard
from transloom.web.connections import HEADERS_SECONDS, http_server

HANG_SECONDS = 300.0  # time after which a test fails; no test waits for this time


class Answer(NamedTuple):
    """Response: status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ServerInThread:
    """Server in a thread with an asyncio loop, on a free port of 127.0.0.1; a context.

    Attributes:
        port: the port on which it listens.
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listens.wait(HANG_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(HANG_SECONDS)
        assert not self._thread.is_alive()
        self._socket.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = {},
        body: bytes | None = None,
    ) -> Answer:
        """Send a request with this path, without normalising the path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_SECONDS)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    async def _serve(self) -> None:
        """Serve with `_listen`."""
        raise NotImplementedError

    async def _listen(self, app: Any, **options: Any) -> None:
        """Serve an application until the context ends."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with http_server(app, self._socket, shutdown_seconds=1.0, **options):
            self._listens.set()
            await self._stop.wait()


class RunningDashboard(ServerInThread):
    """Dashboard on a free port, which runs during a context.

    Attributes:
        cookie: the session cookie that requests need.
        dashboard: the server object, for inspection.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = inspection_command(COMMAND_LINE),
        headers_seconds: float = HEADERS_SECONDS,
    ) -> None:
        super().__init__()
        self._headers_seconds = headers_seconds
        self.doors = PageGuard(self.port)
        self.dashboard = Dashboard(RunsTable(RunsFolder(folder)), self.doors, command)
        self.cookie = ""

    def __enter__(self) -> Self:
        super().__enter__()
        entered = self.request("GET", f"/?token={self.doors.token}", cookie=None)
        self.cookie = entered.headers["Set-Cookie"].split(";")[0]
        return self

    def post(self, path: str, values: Any, **headers: str) -> Answer:
        body = json.dumps(values).encode()
        return self.request("POST", path, {"Origin": self.address} | headers, body)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = {},
        body: bytes | None = None,
        cookie: str | None = "",
    ) -> Answer:
        """Send a request with the session cookie, unless another cookie is given."""
        own = {} if cookie is None else {"Cookie": cookie or self.cookie}
        return super().request(method, path, {**headers, **own}, body)

    def publish(self, event: str, answer: BaseModel) -> None:
        """Send an event to all pages."""
        self._loop.call_soon_threadsafe(self.dashboard._subscribers.publish, event, answer)

    @contextmanager
    def follow(self) -> Iterator["Events"]:
        """Subscribe to events like a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_SECONDS)
        try:
            connection.request("GET", "/api/follow", headers={"Cookie": self.cookie})
            yield Events(connection.getresponse())
        finally:
            connection.close()

    async def _serve(self) -> None:
        await self._listen(self.dashboard.app, headers_seconds=self._headers_seconds)


class Events:
    """Stream of server-sent events."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        assert response.status == 200, response.read()
        assert response.getheader("Content-Type") == "text/event-stream"
        self._response = response

    def next(self, *kinds: str) -> tuple[str, Any]:
        """Return the next event of one of these kinds, and skip other events."""
        kind = ""
        while True:
            line = self._response.readline().decode()
            assert line, "the stream has ended"
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind in kinds:
                return kind, json.loads(value)
