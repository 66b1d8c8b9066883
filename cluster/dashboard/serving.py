"""Where the dashboard listens, and for how long: until it is told to stop."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from cluster.dashboard.doors import TOKEN, Doors, is_loopback
from cluster.dashboard.runs_folder import RunsFolder
from cluster.dashboard.server import Dashboard
from cluster.dashboard.table import RunsTable
from cluster.errors import ClusterError
from data_pipeline.storage.locations import cache_folder

PORT = 8643
PORTS_TRIED = 20
HOST = "127.0.0.1"
CACHE = "curves"  # in the folder of transloom's caches
# Behind everything that trains on this machine.
NICENESS = 10
BACKLOG = 128
STOP_SECONDS = 2.0


def serve(
    folder: Path,
    host: str = HOST,
    port: int | None = None,
    *,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Serve the runs of a folder until SIGINT or SIGTERM.

    Args:
        port: None: a fixed one, or the next one that is free.

    Raises:
        RunMismatchError: there is no such folder.
        ClusterError: nobody can listen there.
    """
    runs = RunsFolder(folder)
    listening = listen(host, port, tell)
    with listening:
        os.nice(NICENESS)
        if not is_loopback(host):
            warn(
                f"the dashboard listens on {host}: whoever reaches this machine and has the token "
                "sees the runs, and nothing of it is encrypted. Rather leave out --host and go by "
                "ssh -L"
            )
        own_port = listening.getsockname()[1]
        doors = Doors(own_port, host)
        address = f"http://{_in_address(host)}:{own_port}/?{TOKEN}={doors.token}"
        tell(f"The runs in {runs.path}: {address}")
        tell("Only who has this address gets in. Ctrl-C ends the dashboard, and no run.")
        dashboard = Dashboard(RunsTable(runs), default_cache(), doors)
        asyncio.run(_serve(dashboard.app, listening))


def listen(host: str, port: int | None, tell: Callable[[str], None]) -> socket.socket:
    """A socket that listens.

    Raises:
        ClusterError: it cannot.
    """
    wanted = range(PORT, PORT + PORTS_TRIED) if port is None else (port,)
    for number in wanted:
        try:
            found = _bound(host, number)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and number != wanted[-1]:
                continue
            tried = f"port {number}" if port is not None else f"ports {PORT} to {wanted[-1]}"
            raise ClusterError(
                f"The dashboard cannot listen on {host}, {tried}: {error.strerror or error}. Name "
                "another --port, or leave out --host"
            ) from error
        if port is None and number != PORT:
            tell(f"Port {PORT} is taken: the dashboard listens on {number}.")
        return found
    raise AssertionError("no port was tried")


def default_cache() -> Path:
    """Where the indexes of records are kept, see `trainer.tracking.curve_index`."""
    return cache_folder(None) / CACHE


async def _serve(app: web.Application, listening: socket.socket) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        await _told_to_stop()
    finally:
        await runner.cleanup()


async def _told_to_stop() -> None:
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


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
