"""Run the dashboard until it is stopped."""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from transloom.observe.dashboard.inspections import inspection_command
from transloom.observe.dashboard.runs_folder import RunsFolder
from transloom.observe.dashboard.server import Dashboard
from transloom.observe.dashboard.table import RunsTable
from transloom.web.auth import TOKEN, PageGuard, is_loopback
from transloom.web.connections import http_server
from transloom.web.listening import HOST, address_of, listen, wait_for_stop_signal

PORT = 8643
# Added to the process's niceness, so that training on this machine has priority.
NICENESS = 10
STOP_SECONDS = 2.0


def serve(
    folder: Path,
    host: str = HOST,
    port: int | None = None,
    *,
    command_line: str,
    print_line: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Serve the runs of a folder until SIGINT or SIGTERM.

    Args:
        port: the port, or None for the default port; if that is in use, the next free port is used.
        command_line: the module whose `main` function is the command `transloom`.

    Raises:
        RunMismatchError: the folder does not exist.
        ClusterError: the address or port cannot be used.
    """
    runs = RunsFolder(folder)
    listening = listen("the dashboard", host, port, PORT, print_line)
    with listening:
        os.nice(NICENESS)
        if not is_loopback(host):
            warn(
                f"the dashboard listens on {host}: anyone who can reach this machine and has the "
                "token sees the runs, and the traffic is not encrypted. Omit --host, and connect "
                "through ssh -L instead"
            )
        own_port = listening.getsockname()[1]
        doors = PageGuard(own_port, host)
        address = f"{address_of(host, listening)}/?{TOKEN}={doors.token}"
        print_line(f"The runs in {runs.path}: {address}")
        print_line(
            "Access requires the token in this address. Ctrl-C stops the dashboard; runs continue."
        )
        dashboard = Dashboard(RunsTable(runs), doors, inspection_command(command_line))
        asyncio.run(_serve(dashboard.app, listening))


async def _serve(app: web.Application, listening: socket.socket) -> None:
    async with http_server(app, listening, shutdown_seconds=STOP_SECONDS):
        await wait_for_stop_signal()
