"""A dashboard that runs in a thread of the test's process, and requests to it as they are sent."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from pydantic import BaseModel

from transloom.cli.dashboard import COMMAND_LINE
from transloom.observe.dashboard.inspections import inspection_command
from transloom.observe.dashboard.runs_folder import RunsFolder
from transloom.observe.dashboard.server import Dashboard
from transloom.observe.dashboard.table import RunsTable
from transloom.web.auth import PageGuard
from transloom.web.connections import HEADERS_SECONDS, http_server

HANG_SECONDS = 300.0  # after which a test has failed; nothing waits for it


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RunningDashboard:
    """A dashboard on a free port, for as long as the context lasts.

    Attributes:
        port: where it listens.
        cookie: with which requests are let in.
        dashboard: to be looked at.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        command: Sequence[str] = inspection_command(COMMAND_LINE),
        headers_seconds: float = HEADERS_SECONDS,
    ) -> None:
        self._headers_seconds = headers_seconds
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.doors = PageGuard(self.port)
        self.dashboard = Dashboard(RunsTable(RunsFolder(folder)), cache, self.doors, command)
        self._loop = asyncio.new_event_loop()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.cookie = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listens.wait(HANG_SECONDS)
        entered = self.request("GET", f"/?token={self.doors.token}", cookie=None)
        self.cookie = entered.headers["Set-Cookie"].split(";")[0]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(HANG_SECONDS)
        assert not self._thread.is_alive()
        self._socket.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers)

    def post(self, path: str, values: Any, **headers: str) -> Answer:
        body = json.dumps(values).encode()
        return self.request("POST", path, {"Origin": self.origin} | headers, body)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        cookie: str | None = "",
    ) -> Answer:
        """Send a request with this path as it is; with the cookie unless another one is given."""
        given = dict(headers or {})
        if cookie is not None:
            given["Cookie"] = cookie or self.cookie
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_SECONDS)
        try:
            connection.putrequest(method, path, skip_host="Host" in given)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def publish(self, event: str, answer: BaseModel) -> None:
        """Send an event to all pages."""
        self._loop.call_soon_threadsafe(self.dashboard._subscribers.publish, event, answer)

    @contextmanager
    def follow(self) -> Iterator["Events"]:
        """A page that listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_SECONDS)
        try:
            connection.request("GET", "/api/follow", headers={"Cookie": self.cookie})
            yield Events(connection.getresponse())
        finally:
            connection.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with http_server(
            self.dashboard.app,
            self._socket,
            shutdown_seconds=1.0,
            headers_seconds=self._headers_seconds,
        ):
            self._listens.set()
            await self._stop.wait()


class Events:
    """Server-sent events, one after another."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        assert response.status == 200, response.read()
        assert response.getheader("Content-Type") == "text/event-stream"
        self._response = response

    def next(self, *kinds: str) -> tuple[str, Any]:
        """The next event of one of these kinds; others are passed over."""
        kind = ""
        while True:
            line = self._response.readline().decode()
            assert line, "the stream has ended"
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind in kinds:
                return kind, json.loads(value)
