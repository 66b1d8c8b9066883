"""HTTP server: requests, their limits, and their responses.

::

    request ──▶ ServingGuard ──▶ size, JSON, numbers ──▶ dispatcher.py ──▶ translations
                             └──▶ status, metrics, API reference, start page

Errors are also sent as JSON: see `messages.Problem`. A request counts as accepted when its whole
body has arrived. Clients that send slowly therefore do not delay the end of the server.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from foundation.file_model import JsonLimits, error_summary
from foundation.untrusted_text import logger_of
from foundation.wording import counted
from transloom.inference.serving.dispatcher import Dispatcher
from transloom.inference.serving.facts import ServedRunFacts, facts_of
from transloom.inference.serving.messages import (
    RETRY_AFTER_SECONDS,
    Problem,
    ProblemKind,
    RefusedError,
    Standing,
    TranslateRequest,
)
from transloom.inference.serving.metrics import CONTENT_TYPE, ServingMetrics
from transloom.inference.serving.openapi import description, description_page
from transloom.inference.serving.replica import running_replica
from transloom.inference.serving.settings import Limits, ServingSettings
from transloom.web.auth import TOKEN, RequestGuard, is_loopback
from transloom.web.connections import admitted, http_server
from transloom.web.listening import address_of, listen, wait_for_stop_signal
from transloom.web.page_files import SHARED, page_routes

logger = logger_of(__name__)


DRAIN_POLL_SECONDS = 0.05
KINDS: dict[int, ProblemKind] = {404: "not_found", 405: "not_allowed", 413: "too_large"}


class ServingGuard(RequestGuard):
    """Middleware that authenticates requests, with errors in JSON; see `transloom.web.auth`.

    The token is optional. Without one, all users of the machine may use the server.
    """

    open_paths = ("/healthz", "/readyz")  # monitoring systems send no token
    for_programs = True
    token_remedy = "a token is needed: send it as Authorization: Bearer …, or open /?token=…"

    def refused(self, status: int, why: str) -> web.Response:
        refusal = _answer(Problem(kind="not_allowed", problem=why), status)
        if status == 401:
            refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal


class ServingServer:
    """HTTP server that translates with the served runs.

    Attributes:
        app: the application that `aiohttp.web` runs.
    """

    def __init__(
        self,
        runs: Sequence[Dispatcher],
        limits: Limits,
        metrics: ServingMetrics,
        guard: ServingGuard,
    ) -> None:
        self._runs = {run.name: run for run in runs}
        self._first = runs[0]
        self._limits, self._metrics = limits, metrics
        self._json_limits = JsonLimits(limits.request_bytes, limits.request_bytes)
        self._in_flight = 0
        self._stops = False
        self._description = description(list(self._runs), limits)
        self._description_page = description_page(self._description).encode()
        metrics.expect(self._runs)
        self.app = web.Application(
            middlewares=[guard.middleware, self._problems], client_max_size=limits.request_bytes
        )
        self.app.add_routes(
            [
                *page_routes("transloom.inference.serving", {"shared": SHARED}),
                web.post("/translate", self._translate),
                web.post("/runs/{run}/translate", self._translate),
                web.get("/runs", self._standing),
                web.get("/healthz", self._livez),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._numbers),
                web.get("/openapi.json", self._openapi),
                web.get("/docs", self._docs),
            ]
        )

    async def drain(self, seconds: float) -> int:
        """Refuse new requests, and wait for the responses to accepted requests.

        Returns:
            The number of requests without a response after `seconds`.
        """
        self._stops = True
        until = time.monotonic() + seconds
        while self._in_flight and time.monotonic() < until:
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        return self._in_flight

    async def _translate(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("run", self._first.name)
        if name not in self._runs:
            names = ", ".join(self._runs)
            raise RefusedError(404, "not_found", f"no run {name!r:.100} is served: use {names}")
        status, began = 499, time.monotonic()  # 499 if the client disconnects
        try:
            response = await self._problems(request, self._translations)
            status = response.status
        finally:
            self._metrics.requests.labels(name, str(status)).inc()
        if status == 200:
            self._metrics.request_seconds.labels(name).observe(time.monotonic() - began)
        return response

    async def _translations(self, request: web.Request) -> web.Response:
        run = self._runs[request.match_info.get("run", self._first.name)]
        seconds = self._limits.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                wanted = await self._wanted(request)
                with admitted(request), self._accepted():
                    return _answer(await run.translate(wanted))
        except TimeoutError:
            why = f"the translation was not ready within {seconds:g} s: retry later, or send fewer"
            raise RefusedError(504, "timeout", f"{why} sentences") from None

    @contextmanager
    def _accepted(self) -> Iterator[None]:
        """Count a request among those that the server answers before it ends."""
        if self._stops:
            raise RefusedError(503, "not_ready", "the server is shutting down")
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _wanted(self, request: web.Request) -> TranslateRequest:
        if request.content_type != "application/json":
            raise RefusedError(
                415,
                "not_understood",
                f"the content type is {request.content_type:.100}, but must be application/json",
            )
        try:
            return TranslateRequest.from_json(await request.read(), self._json_limits)
        except ValidationError as error:
            raise RefusedError(400, "not_understood", error_summary(error)) from error
        except ConnectionError as error:
            raise RefusedError(499, "not_understood", "the client has disconnected") from error
        except (ValueError, web.RequestPayloadError) as error:
            raise RefusedError(400, "not_understood", f"the body is not valid: {error}") from error

    def _now(self) -> Standing:
        runs = [run.current_status() for run in self._runs.values()]
        missing = [run.name for run in runs if not run.ready]
        problem = None
        if self._stops:
            problem = "the server is shutting down"
        elif missing:
            problem = f"no replica of {', '.join(missing)} is ready"
        return Standing(ready=problem is None, problem=problem, runs=runs)

    async def _standing(self, request: web.Request) -> web.Response:
        return _answer(self._now())

    async def _livez(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        now = self._now()
        return _answer(now, 200 if now.ready else 503)

    async def _numbers(self, request: web.Request) -> web.Response:
        runs = [(run.current_status(), run.replica_statuses()) for run in self._runs.values()]
        return web.Response(body=self._metrics.text(runs), headers={"Content-Type": CONTENT_TYPE})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(self._description)

    async def _docs(self, request: web.Request) -> web.Response:
        return web.Response(body=self._description_page, content_type="text/html", charset="utf-8")

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusedError as error:
            return _answer(error.answer, error.status)
        except web.HTTPException as error:
            kind = KINDS.get(error.status, "failed")
            text = error.reason
            if error.status == 413:
                text = f"the body has more than {self._limits.request_bytes:,} bytes, the limit"
            answer = _answer(Problem(kind=kind, problem=text), error.status)
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except Exception:
            logger.exception("a request failed")
            problem = Problem(kind="failed", problem="internal error; see the server's log")
            return _answer(problem, 500)


def _answer(answer: BaseModel, status: int = 200) -> web.Response:
    body = answer.model_dump_json(exclude_none=True).encode()
    response = web.Response(status=status, body=body, content_type="application/json")
    if status in RETRY_AFTER_SECONDS:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS[status])
    return response


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
        start.result()  # raises the error if a replica has not started
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
