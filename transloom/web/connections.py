"""HTTP server with limits for clients that have not sent a valid token.

::

    socket ──▶ accept, one at a time ──▶ waiting ──▶ admitted, by `admit` or `admitted`
                                           ├── over MAX_WAITING: the oldest is closed
                                           └── no complete headers for HEADERS_SECONDS: closed

Every user of the machine can connect to 127.0.0.1. The number of waiting connections is limited,
and a new connection replaces the oldest one. A client with the token is therefore admitted even if
others hold many connections. Refused clients add at most one line per minute to the log.

aiohttp calls `handle_error` for a malformed request and `log_exception` for an error outside of the
application, and its keep-alive timeout starts when a client connects. This was found in the source
of aiohttp 3.14.4 and 3.14.5; `tests/transloom/web/test_connections.py` fails if it changes.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from foundation.untrusted_text import logger_of

logger = logger_of(__name__)

MAX_WAITING = 64
# Time limit from the connection, or from the last response, to the end of a request's headers.
HEADERS_SECONDS = 10.0
LOG_SECONDS = 60.0
# Pause between two attempts to accept a connection when no file descriptor is free.
ACCEPT_RETRY_SECONDS = 0.1

MALFORMED_ERRORS = (HttpProcessingError, web.RequestPayloadError)

# Headers of every response: pages load only from their own server, and nothing is cached.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "transloom",
}

MALFORMED = "malformed or incomplete requests"
CLOSED = f"connections closed for newer ones (at most {MAX_WAITING} without a token are kept)"
NOT_ACCEPTED = "failures to accept a connection (too few descriptors? raise `ulimit -n`)"


@asynccontextmanager
async def http_server(
    app: web.Application,
    listening: socket.socket,
    *,
    shutdown_seconds: float,
    handler_cancellation: bool = False,
    headers_seconds: float = HEADERS_SECONDS,
) -> AsyncIterator[None]:
    """Serve an application on a listening socket within the context; close the socket at the end.

    Args:
        shutdown_seconds: time limit at shutdown for requests in progress.
        handler_cancellation: cancel a request's handler when its client disconnects.
    """
    app.on_response_prepare.append(_add_headers)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=shutdown_seconds,
        handler_cancellation=handler_cancellation,
    )
    await runner.setup()
    assert runner.server is not None
    connections = Connections(runner.server, headers_seconds)
    accepting = asyncio.create_task(connections.accept(listening))
    # If accepting fails, `result` raises the error, and asyncio logs it.
    accepting.add_done_callback(lambda task: task.cancelled() or task.result())
    try:
        yield
    finally:
        accepting.cancel()
        await asyncio.wait({accepting})
        listening.close()
        await runner.cleanup()
        connections.refusals.close()


def admit(request: web.Request) -> None:
    """Exempt the connection of a request with a valid token from the limits, until it ends."""
    _connection_of(request).admit()


@contextmanager
def admitted(request: web.Request) -> Iterator[None]:
    """Exempt a request's connection from the limits while its response is computed."""
    connection = _connection_of(request)
    if connection.is_admitted:  # do not undo an earlier admission after this request
        yield
        return
    connection.admit()
    try:
        yield
    finally:
        connection.wait_again()


class Refusals:
    """Counter of refusals, which logs the counts at most once every `LOG_SECONDS`."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, kind: str) -> None:
        """Count one refusal, and log it immediately if nothing was logged recently."""
        self._counts[kind] += 1
        if self._timer is None:
            self._log()

    def close(self) -> None:
        """Log the refusals that were counted since the last log line."""
        if self._timer is not None:
            self._timer.cancel()
        self._log_counts()

    def _log(self) -> None:
        self._timer = None
        if self._log_counts():
            self._timer = asyncio.get_running_loop().call_later(LOG_SECONDS, self._log)

    def _log_counts(self) -> bool:
        if not self._counts:
            return False
        logger.warning(
            "Refused by the server since the last line of this kind: %s",
            ", ".join(f"{kind}: {count:,}" for kind, count in self._counts.items()),
        )
        self._counts.clear()
        return True


class Connections:
    """Waiting connections of a server, oldest first.

    Attributes:
        refusals: counts of refused requests and closed connections.
    """

    def __init__(self, server: web.Server, headers_seconds: float) -> None:
        self.refusals = Refusals()
        self._server, self._headers_seconds = server, headers_seconds
        self._waiting: dict[Connection, None] = {}

    async def accept(self, listening: socket.socket) -> None:
        """Accept connections until this coroutine is cancelled.

        A server of asyncio accepts a whole backlog before it reads from any connection. This server
        reads from each connection before many newer connections could replace it.
        """
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        while True:
            await _until_readable(listening)
            try:
                client, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError:  # no file descriptor is free, or no memory for the socket
                self.refusals.add(NOT_ACCEPTED)
                self._close_oldest()
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            try:
                await loop.connect_accepted_socket(self._connection, client)
            except OSError:
                client.close()

    def add(self, connection: "Connection") -> None:
        """Add a connection to the waiting ones, as the newest."""
        self._waiting[connection] = None
        if len(self._waiting) > MAX_WAITING:
            self._close_oldest()
            self.refusals.add(CLOSED)

    def remove(self, connection: "Connection") -> None:
        """Remove a connection from the waiting ones, because it was admitted or has ended."""
        self._waiting.pop(connection, None)

    def _close_oldest(self) -> None:
        if oldest := next(iter(self._waiting), None):
            self.remove(oldest)
            oldest.abort()

    def _connection(self) -> "Connection":
        return Connection(self, self._server, self._headers_seconds)


class Connection(web.RequestHandler):
    """Connection that waits until it is admitted, and that counts malformed requests."""

    def __init__(
        self, connections: Connections, server: web.Server, headers_seconds: float
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=headers_seconds,
            access_log=None,  # type: ignore[arg-type]
        )
        self._connections = connections
        # A second reference to the transport: aiohttp sets `transport` to None as soon as it closes
        # the connection, even if unsent data remains.
        self._open: asyncio.Transport | None = None
        self.is_admitted = False

    def admit(self) -> None:
        """Exempt the connection from the limits."""
        self.is_admitted = True
        self._connections.remove(self)

    def wait_again(self) -> None:
        """Undo `admit`: make the connection wait again, as the newest one, unless it has ended."""
        self.is_admitted = False
        if self._open is not None:
            self._connections.add(self)

    def abort(self) -> None:
        """Close the connection immediately, and discard unsent data."""
        if self._open is not None:
            self._open.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._open = transport
        self._connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        self._open = None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to a malformed request or a failed handler, with `HEADERS`."""
        if self._is_clients(exc):
            self._connections.refusals.add(MALFORMED)
            answer: web.StreamResponse = web.Response(
                status=400, text="the request is malformed: expected HTTP/1.1\n"
            )
            answer.force_close()
        else:
            answer = super().handle_error(request, status, exc, message)
        answer.headers.update(HEADERS)
        return answer

    def log_exception(self, *args: object, **kw: object) -> None:
        """Log an error of the server; only count an error that a client caused."""
        if self._is_clients(kw.get("exc_info")):
            self._connections.refusals.add(MALFORMED)
        else:
            super().log_exception(*args, **kw)

    def _is_clients(self, error: object) -> bool:
        """Return whether a client caused an error, by malformed data or an early disconnect."""
        has_left = self.transport is None and isinstance(error, ConnectionError)
        return has_left or isinstance(error, MALFORMED_ERRORS)


async def _until_readable(listening: socket.socket) -> None:
    """Wait until a client connects.

    If no file descriptor is free, `accept` may fail even though no client waits. The server
    therefore calls `accept` only when a client waits.
    """
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listening, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(listening)


def _connection_of(request: web.Request) -> Connection:
    connection = request.protocol
    assert isinstance(connection, Connection), "serve the application with `http_server`"
    return connection


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add `HEADERS` to a response; see `web.Application.on_response_prepare`."""
    response.headers.update(HEADERS)
