"""Entry point of `transloom serve`, from start to stop signal.

start: facts of the runs ──▶ replicas of each run ──▶ HTTP server
stop: refuse new requests ──▶ answer accepted ones ──▶ end the replicas
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from foundation.wording import counted
from transloom.inference.serving.dispatcher import Dispatcher
from transloom.inference.serving.facts import ServedRunFacts, facts_of
from transloom.inference.serving.metrics import ServingMetrics
from transloom.inference.serving.replica import running_replica
from transloom.inference.serving.server import ServingGuard, ServingServer
from transloom.inference.serving.settings import ServingSettings
from transloom.web.auth import TOKEN, is_loopback
from transloom.web.connections import http_server
from transloom.web.listening import address_of, listen, wait_for_stop_signal

PORT = 8644
STOP_SECONDS = 1.0

Tell = Callable[[str], None]


def serve_runs(settings: ServingSettings, *, print_line: Tell, warn: Tell) -> None:
    """Serve runs until SIGINT or SIGTERM, then answer the accepted requests and return.

    Raises:
        ClusterError: no replica of a run started, or the port cannot be used.
        RunMismatchError, CheckpointError: a run cannot be served.
    """
    facts = {name: facts_of(of_run) for name, of_run in settings.runs.items()}
    with listen("the server", settings.host, settings.port, PORT, print_line) as listening:
        if not is_loopback(settings.host):
            _warn_of_others(settings, warn)
        asyncio.run(_serve(settings, facts, listening, print_line))
    print_line("Stopped.")


def _warn_of_others(settings: ServingSettings, warn: Tell) -> None:
    who, remedy = "", "Give --token FILE, and"
    if settings.token is not None:
        who, remedy = " and have the token", "To encrypt the traffic,"
    warn(
        f"the server listens on {settings.host}: all users who can reach this machine{who} can "
        f"request translations, and the traffic is not encrypted. {remedy} put a TLS proxy in "
        "front of the server"
    )


async def _serve(
    settings: ServingSettings,
    facts: dict[str, ServedRunFacts],
    listening: socket.socket,
    print_line: Tell,
) -> None:
    stop = asyncio.create_task(wait_for_stop_signal())
    metrics = ServingMetrics()
    runs = [
        Dispatcher(name, facts[name], partial(running_replica, of_run), settings, metrics)
        for name, of_run in settings.runs.items()
    ]
    guard = ServingGuard(listening.getsockname()[1], settings.host, settings.token)
    server = ServingServer(runs, settings.limits, metrics, guard)
    try:
        start = asyncio.gather(*(ready for run in runs for ready in run.start()))
        first: list[asyncio.Future[Any]] = [stop, start]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            return
        start.result()  # raises the error of a start
        async with http_server(
            server.app, listening, shutdown_seconds=STOP_SECONDS, handler_cancellation=True
        ):
            _print_address(settings, address_of(settings.host, listening), print_line)
            await stop
            print_line("Stopping: accepted requests are answered, and new requests are refused.")
            left = await server.drain(settings.limits.timeout_seconds)
            if left:
                print_line(f"The server stops before it has answered {counted(left, 'request')}.")
    finally:
        for run in runs:
            await run.close()


def _print_address(settings: ServingSettings, address: str, print_line: Tell) -> None:
    names = ", ".join(settings.runs)
    token = "" if settings.token is None else f"/?{TOKEN}=…"
    print_line(f"Serving {names}: {address}{token}")
    print_line(
        f"API reference: {address}/docs. Ctrl-C answers the accepted requests and stops the server."
    )
