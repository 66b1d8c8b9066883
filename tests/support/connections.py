"""Raw connections to a server, opened by a client without a token."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from support.dashboard.running import HANG_SECONDS

HALF_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "


def connect(port: int) -> socket.socket:
    """Connect to a server on this machine."""
    return socket.create_connection(("127.0.0.1", port), HANG_SECONDS)


@contextmanager
def half_requests(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that send incomplete headers, and hold them during the context."""
    with ExitStack() as held:
        connections = [held.enter_context(connect(port)) for _ in range(count)]
        for connection in connections:
            connection.sendall(HALF_REQUEST)
        yield connections


def answer_to(port: int, *parts: bytes) -> bytes:
    """Send a request, and return the response; send later parts after the response has begun.

    The server closes the connection after a malformed request, and the client after the last part.
    """
    answer = b""
    with connect(port) as connection:
        connection.sendall(parts[0])
        for part in parts[1:]:
            answer += received(connection)
            connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        while more := received(connection):
            answer += more
    return answer


def received(connection: socket.socket) -> bytes:
    """Return the data that has arrived; empty if the server has closed the connection."""
    try:
        return connection.recv(100_000)
    except ConnectionError:
        return b""
