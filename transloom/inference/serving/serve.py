"""Entry point of `transloom serve`, from start to stop signal.

start: facts of the runs ──▶ Ray ──▶ a Ray Serve application per run ──▶ HTTP server
stop: refuse new requests ──▶ answer accepted ones ──▶ stop applications and Ray
"""

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.errors import ClusterError, EmbeddedRayError
from cluster.ray.embedded import EmbeddedRay, embedded_ray_is_lost
from cluster.ray.session import ray_session
from cluster.supervision.command_signals import ignore_signals
from foundation.optional_packages import install_command
from foundation.wording import counted
from transloom.inference.engine_names import Engine
from transloom.inference.serving.auth import ServingGuard
from transloom.inference.serving.batch import Batch, BatchAnswer
from transloom.inference.serving.dispatcher import Ask, Dispatcher
from transloom.inference.serving.errors import ReplicaLostError
from transloom.inference.serving.facts import ServedRunFacts, facts_of
from transloom.inference.serving.metrics import ServingMetrics
from transloom.inference.serving.replica import Replica
from transloom.inference.serving.server import ServingServer
from transloom.inference.serving.settings import ReplicaSettings, ServingSettings
from transloom.web.auth import TOKEN, is_loopback
from transloom.web.connections import http_server
from transloom.web.listening import address_of, listen, wait_for_stop_signal

PORT = 8644
STOP_SECONDS = 1.0
POLL_SECONDS = 1.0  # between two checks that Ray is still running
HEALTH_SECONDS = 2.0  # between two health checks of a replica by Ray Serve
SERVE_LOGGER = "ray.serve"

Tell = Callable[[str], None]


def serve_runs(settings: ServingSettings, *, print_line: Tell, warn: Tell) -> None:
    """Serve runs until SIGINT or SIGTERM, then answer the accepted requests and return.

    Raises:
        ClusterError: Ray Serve is not installed, Ray did not start, or the port cannot be used.
        RunMismatchError, CheckpointError: a run cannot be served.
        EngineError: an engine is not installed, or does not support an option.
    """
    _require_ray_serve()
    for of_run in settings.runs.values():
        _require_engine(of_run)
    facts = {name: facts_of(of_run) for name, of_run in settings.runs.items()}
    with listen("the server", settings.host, settings.port, PORT, print_line) as listening:
        if not is_loopback(settings.host):
            _warn_of_others(settings, warn)
        cpus = settings.replicas * sum(of_run.cpus for of_run in settings.runs.values())
        with (
            _ended_by_signals(),
            ray_session(settings.address, EmbeddedRay(cpus=cpus), warn),
            _applications(settings, cpus) as asks,
        ):
            asyncio.run(_serve(settings, facts, asks, listening, print_line))
            ignore_signals()  # a second signal must not interrupt the cleanup
            print_line("Stopped.")


def _require_ray_serve() -> None:
    try:
        import ray.serve  # noqa: F401
    except ImportError as error:
        raise ClusterError(
            f"Ray Serve cannot be imported ({error}). Install it with {install_command('serve')}"
        ) from error
    logging.getLogger(SERVE_LOGGER).setLevel(logging.ERROR)  # hides Ray Serve's progress


def _require_engine(settings: ReplicaSettings) -> None:
    wanted = settings.decoding
    if wanted.engine is Engine.TORCH and wanted.compute_type is None:
        return
    from transloom.inference.engines import require_possible  # imports torch

    require_possible(wanted.engine, wanted.compute_type, "cpu", wanted.precision)


def _warn_of_others(settings: ServingSettings, warn: Tell) -> None:
    who = "all users who can reach this machine can request translations"
    if settings.token is not None:
        who = "all users who can reach this machine and have the token can request translations"
    remedy = "" if settings.token is not None else " Give --token FILE, and"
    warn(
        f"the server listens on {settings.host}: {who}, and the traffic is not encrypted."
        f"{remedy or ' To encrypt the traffic,'} put a TLS proxy in front of the server"
    )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the context, and run its cleanup, when SIGINT or SIGTERM arrives during the start.

    SIGTERM raises KeyboardInterrupt in the context, as SIGINT does.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:  # a signal during the start
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _applications(settings: ServingSettings, cpus: int) -> Iterator[dict[str, Ask]]:
    """Run a Ray Serve application for each run during the context, without Ray Serve's proxy.

    Yield a function for each run, by the run's name, which sends a batch to one of the run's
    replicas. On a cluster, other users' applications keep running afterwards; an embedded Ray stops
    with its applications.

    Raises:
        ClusterError: there are too few CPUs, or no replica started.
    """
    from ray import serve

    there = ray.cluster_resources().get("CPU", 0.0)
    if there < cpus:
        raise ClusterError(
            f"{counted(settings.replicas, 'replica')} of {counted(len(settings.runs), 'run')} need "
            f"{counted(cpus, 'CPU')}, but Ray has {there:g}: lower --replicas or --cpus"
        )
    was_there = bool(_applications_there())
    serve.start(proxy_location="Disabled")
    mark = secrets.token_hex(4)
    with ExitStack() as at_the_end:  # also cleans up if starting an application fails
        on_cluster = settings.address is not None
        if on_cluster and not was_there:
            at_the_end.callback(_shut_down_if_idle)
        asks = {}
        for name, of_run in settings.runs.items():
            application = f"transloom-{name}-{mark}"
            if on_cluster:
                at_the_end.callback(serve.delete, application)
            asks[name] = _started(application, of_run, settings.replicas)
        yield asks


def _shut_down_if_idle() -> None:
    from ray import serve

    if not _applications_there():
        serve.shutdown()


def _applications_there() -> dict[str, Any]:
    """Return the Ray Serve applications on this cluster, by name; {} if they are unknown."""
    from ray import serve

    try:
        return dict(serve.status().applications)
    except RayError:
        return {}


def _started(application: str, settings: ReplicaSettings, replicas: int) -> Ask:
    from ray import serve
    from ray.serve.exceptions import RayServeException

    deployment = serve.deployment(Replica).options(
        name="translator",
        num_replicas=replicas,
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": settings.cpus},
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=HEALTH_SECONDS,
    )
    try:
        handle = serve.run(deployment.bind(settings), name=application, route_prefix=None)
    except RuntimeError as error:
        raise ClusterError(f"No replica of {settings.run} started: {error}") from error

    async def ask(batch: Batch) -> BatchAnswer:
        try:
            answer: BatchAnswer = await handle.translate.remote(batch)
        except RayTaskError:
            raise  # raised by code in the replica, which is still alive
        except (RayError, RayServeException) as error:
            raise ReplicaLostError(str(error).partition("\n")[0]) from error
        return answer

    return ask


async def _serve(
    settings: ServingSettings,
    facts: dict[str, ServedRunFacts],
    asks: dict[str, Ask],
    listening: socket.socket,
    print_line: Tell,
) -> None:
    metrics = ServingMetrics()
    runs = [Dispatcher(name, facts[name], asks[name], settings, metrics) for name in settings.runs]
    guard = ServingGuard(listening.getsockname()[1], settings.host, settings.token)
    server = ServingServer(runs, settings.limits, metrics, guard)
    try:
        for run in runs:
            await run.poll_replica()
            run.start()
        async with http_server(
            server.app, listening, shutdown_seconds=STOP_SECONDS, handler_cancellation=True
        ):
            _print_address(settings, address_of(settings.host, listening), print_line)
            await _wait_for_stop_or_loss()
            print_line("Stopping: accepted requests are answered, and new requests are refused.")
            left = await server.drain(settings.limits.timeout_seconds)
            if left:
                print_line(f"The server stops before it has answered {counted(left, 'request')}.")
    finally:
        for run in runs:
            await run.close()


async def _wait_for_stop_or_loss() -> None:
    """Wait for a stop signal.

    Raises:
        EmbeddedRayError: the Ray that this process started has ended, so no replica is left.
    """
    told = asyncio.create_task(wait_for_stop_signal())
    while not (await asyncio.wait({told}, timeout=POLL_SECONDS))[0]:
        if embedded_ray_is_lost():
            told.cancel()
            raise EmbeddedRayError("Ray is lost on this machine: start the server again")


def _print_address(settings: ServingSettings, address: str, print_line: Tell) -> None:
    names = ", ".join(settings.runs)
    token = "" if settings.token is None else f"/?{TOKEN}=…"
    print_line(f"Serving {names}: {address}{token}")
    print_line(
        f"API reference: {address}/docs. Ctrl-C answers the accepted requests and stops the server."
    )
