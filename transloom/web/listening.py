"""Listening sockets of servers, and the signals that stop them."""

import asyncio
import errno
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from cluster.errors import ClusterError

HOST = "127.0.0.1"
PORTS_TRIED = 20
BACKLOG = 128


def listen(
    who: str, host: str, port: int | None, usual: int, tell: Callable[[str], None]
) -> socket.socket:
    """Return a listening socket.

    Args:
        who: name of the server in messages, such as "the dashboard".
        port: port to use; None for `usual` or, if that port is taken, the next free one.
        tell: called with a message if `port` is None and `usual` is taken.

    Raises:
        ClusterError: no socket can listen on this host and port.
    """
    wanted = range(usual, usual + PORTS_TRIED) if port is None else (port,)
    for number in wanted:
        try:
            found = _bound(host, number)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and number != wanted[-1]:
                continue
            tried = f"port {number}" if port is not None else f"ports {usual} to {wanted[-1]}"
            raise ClusterError(
                f"{who.capitalize()} cannot listen on {host}, {tried}: {error.strerror or error}. "
                "Choose another --port, or leave out --host"
            ) from error
        if port is None and number != usual:
            tell(f"Port {usual} is taken, so {who} listens on port {number}.")
        return found
    raise AssertionError("no port was tried")


def address_of(host: str, listening: socket.socket) -> str:
    """Return the URL of a server's first page, without a trailing slash."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


async def wait_for_stop_signal() -> None:
    """Wait for SIGINT, SIGTERM or SIGHUP."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError:
        with suppress(OSError):
            found.close()
        raise
    return found
