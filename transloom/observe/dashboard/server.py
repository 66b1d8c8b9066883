"""Server of `transloom dashboard`: its routes and their handlers.

::

    request ──▶ web/auth.py ──▶ run_responses.py, in a few threads, from run folders
                        └──▶ follower.py ──▶ page_subscribers.py ──▶ server-sent events
                        └──▶ inspections.py: processes of `transloom replay`

The server reads runs and never writes them. If a run lacks its curve file, the server builds a copy
in the user's cache.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from foundation.file_model import MAX_COUNT, JsonLimits, error_summary, parse_object
from foundation.shown_urls import with_urls
from run_store.errors import RunError
from run_store.folder import RunFolder
from transloom.observe.curves.curves import MAX_POINTS, read_curves
from transloom.observe.dashboard.api_models import FactsResponse, InspectionRequest, Problem
from transloom.observe.dashboard.follower import Follower
from transloom.observe.dashboard.inspections import InspectionManager, InspectionRefusedError
from transloom.observe.dashboard.page_subscribers import PageSubscribers, TooManyPagesError
from transloom.observe.dashboard.run_responses import (
    nodes_response,
    run_response,
    time_lapse_response,
)
from transloom.observe.dashboard.table import RunsTable
from transloom.observe.drawing.modules import DRAWING
from transloom.web.auth import PageGuard
from transloom.web.page_files import SHARED, page_routes

THREADS = 4
REQUEST_LIMITS = JsonLimits(bytes=1_000, values=10)
# Interval of comment lines, which are sent to detect dead connections.
ALIVE_SECONDS = 15.0
# A page is disconnected if it accepts no data for this many seconds.
WRITE_SECONDS = 30.0


class Dashboard:
    """Web application that answers requests about the runs of a folder.

    Attributes:
        app: the application, to be run by `aiohttp.web`.
    """

    def __init__(self, table: RunsTable, doors: PageGuard, look_command: Sequence[str]) -> None:
        self._table, self._look_command = table, look_command
        self._subscribers = PageSubscribers()
        self.app = web.Application(
            middlewares=[doors.middleware, _problems], client_max_size=REQUEST_LIMITS.bytes
        )
        self.app.cleanup_ctx.append(self._parts)
        self.app.on_shutdown.append(self._disconnect_all)
        self.app.add_routes(
            [
                *page_routes("transloom.observe.dashboard", {"drawing": DRAWING, "shared": SHARED}),
                web.get("/api/facts", self._facts),
                web.get("/api/runs", self._runs),
                web.get("/api/runs/{run}", self._run),
                web.get("/api/runs/{run}/curves", self._curves),
                web.get("/api/runs/{run}/nodes", self._nodes),
                web.get("/api/runs/{run}/time-lapse", self._time_lapse),
                web.post("/api/runs/{run}/looks", self._start_look),
                web.get("/api/runs/{run}/looks/{first:[0-9]+}-{last:[0-9]+}", self._look),
                web.get("/api/follow", self._follow),
            ]
        )

    async def _parts(self, app: web.Application) -> AsyncIterator[None]:
        """Create the components that need an event loop, and close them when the server ends."""
        executor = ThreadPoolExecutor(THREADS, "dashboard")
        asyncio.get_running_loop().set_default_executor(executor)  # used by `asyncio.to_thread`
        self._follower = Follower(self._table, self._subscribers)
        publish = partial(self._subscribers.publish, "looks")
        self._looks = InspectionManager(publish, self._look_command)
        yield
        await self._follower.close()
        await self._looks.close()
        executor.shutdown(wait=False, cancel_futures=True)

    async def _disconnect_all(self, app: web.Application) -> None:
        self._subscribers.close()

    async def _facts(self, request: web.Request) -> web.Response:
        return _answer(FactsResponse())

    async def _runs(self, request: web.Request) -> web.Response:
        return _answer(await asyncio.to_thread(self._table.answer))

    async def _run(self, request: web.Request) -> web.Response:
        path = await self._path(request)
        return _answer(await asyncio.to_thread(run_response, path))

    async def _curves(self, request: web.Request) -> web.Response:
        path, run = await self._path(request), request.match_info["run"]
        points = _number(request, "points", MAX_POINTS) or MAX_POINTS
        first, last = _number(request, "from", 0), _number(request, "to", MAX_COUNT)
        answer = await asyncio.to_thread(read_curves, RunFolder(path), points, first, last)
        self._follower.expect(run, RunFolder(path).metrics, answer.recorded_bytes)
        return _answer(answer)

    async def _nodes(self, request: web.Request) -> web.Response:
        path = await self._path(request)
        return _answer(await asyncio.to_thread(nodes_response, path))

    async def _time_lapse(self, request: web.Request) -> web.Response:
        path = await self._path(request)
        return _answer(await asyncio.to_thread(time_lapse_response, path))

    async def _start_look(self, request: web.Request) -> web.Response:
        path, run = await self._path(request), request.match_info["run"]
        try:
            values = parse_object(await request.read(), REQUEST_LIMITS)
            wanted = InspectionRequest.model_validate(values)
            look = self._looks.start(run, path, wanted.first_step, wanted.last_step)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"invalid steps: {error_summary(error)}") from error
        except InspectionRefusedError as error:
            raise web.HTTPConflict(text=str(error)) from error
        return web.Response(status=202, body=look.answer(), content_type="application/json")

    async def _look(self, request: web.Request) -> web.Response:
        await self._path(request)
        run, first, last = (request.match_info[name] for name in ("run", "first", "last"))
        look = self._looks.find(run, int(first[:16]), int(last[:16]))
        if look is None:
            raise web.HTTPNotFound(text=f"steps {first} to {last} of {run} were not inspected")
        return web.Response(body=look.answer(), content_type="application/json")

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """Send server-sent events until the page disconnects or reads too slowly."""
        try:
            page = self._subscribers.enter()
        except TooManyPagesError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from error
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            self._follower.wake()
            while (messages := await page.take(ALIVE_SECONDS)) is not None:
                await asyncio.wait_for(response.write(messages or b": here\n\n"), WRITE_SECONDS)
        except (ConnectionError, TimeoutError):
            if request.transport:
                request.transport.abort()  # otherwise unsent data would stay in memory
        finally:
            self._subscribers.leave(page)
        return response

    async def _path(self, request: web.Request) -> Path:
        """Return the folder of the run that a request names.

        Only folders in the table are returned, so that a request cannot name any other path.

        Raises:
            web.HTTPNotFound: the table has no such run.
        """
        run = request.match_info["run"]
        if run not in self._table.paths:
            await asyncio.to_thread(self._table.refresh)
        if run not in self._table.paths:
            raise web.HTTPNotFound(text=f"there is no run {run!r:.100} in this folder")
        return self._table.paths[run]


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert errors to JSON responses of the type `Problem`."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _answer(Problem(problem=error.text or error.reason), error.status)
    except OSError as error:
        return _answer(Problem(problem=f"{error.filename}: {error.strerror or error}"), 500)
    except (RunError, ValueError) as error:
        return _answer(Problem(problem=str(error)), 500)


def _answer(answer: BaseModel, status: int = 200) -> web.Response:
    body = with_urls(answer.model_dump_json(by_alias=True)).encode()
    return web.Response(status=status, body=body, content_type="application/json")


def _number(request: web.Request, name: str, otherwise: int) -> int:
    text = request.query.get(name)
    if text is None:
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise web.HTTPBadRequest(
            text=f"{name} is {text!r:.40}, expected a number of at most 15 digits"
        )
    return int(text)
