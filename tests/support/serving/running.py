"""Server in a thread of the test's process that translates in threads, and requests to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from run_store.checkpoints.checkpoint import Checkpoint
from support.dashboard.running import HANG_SECONDS, Answer, ServerInThread
from transloom.inference.serving.batches import Batch
from transloom.inference.serving.dispatcher import Dispatcher
from transloom.inference.serving.facts import facts_of
from transloom.inference.serving.metrics import ServingMetrics
from transloom.inference.serving.replica import ReplicaLostError, ReplicaReport, ReplicaStatus
from transloom.inference.serving.replica_process import load, translate_batch
from transloom.inference.serving.server import ServingGuard, ServingServer
from transloom.inference.serving.settings import Batching, Limits, ReplicaSettings, ServingSettings

Before = Callable[[Batch], None]


class RunningServer(ServerInThread):
    """Server of one run, which runs during a context.

    Attributes:
        batches: the batches that were translated.
        before: called with each batch before it is translated; may raise a replica's errors.
    """

    def __init__(
        self,
        run: Path,
        limits: Limits | None = None,
        batching: Batching | None = None,
        token: str | None = None,
        before: Before = lambda batch: None,
    ) -> None:
        super().__init__()
        self._settings = ReplicaSettings(run)
        self._translator = load(self._settings, str(newest(run)))
        self._limits, self._batching = limits or Limits(), batching or Batching()
        self._token = token
        self.before = before
        self.batches: list[Batch] = []
        self._pool = ThreadPoolExecutor(2)  # two, because a lost replica may still occupy a thread

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._pool.shutdown()

    def translate(self, values: Any, path: str = "/translate", **headers: str) -> Answer:
        body = values if isinstance(values, bytes) else json.dumps(values).encode()
        return self.request("POST", path, {"Content-Type": "application/json"} | headers, body)

    def lose_replica(self) -> None:
        """Make the replica stop reporting, as if its process had been killed."""
        self._loop.call_soon_threadsafe(self._replica_here.lost.set)

    def drain(self) -> "asyncio.Future[int]":
        """Make the server refuse new requests."""
        return asyncio.run_coroutine_threadsafe(self._server.drain(HANG_SECONDS), self._loop)

    @asynccontextmanager
    async def _replica(self) -> AsyncIterator["_ReplicaHere"]:
        self._replica_here = _ReplicaHere(self._translated, self._translator.checkpoint, self._pool)
        yield self._replica_here

    def _translated(self, batch: Batch) -> list[Any]:
        self.before(batch)
        self.batches.append(batch)
        return translate_batch(self._translator, batch, self._settings)

    async def _serve(self) -> None:
        metrics = ServingMetrics()
        self._dispatcher = Dispatcher(
            self._settings.run.name,
            facts_of(self._settings),
            self._replica,  # type: ignore[arg-type]
            ServingSettings({}, limits=self._limits, batching=self._batching),
            metrics,
        )
        guard = ServingGuard(self.port, "127.0.0.1", self._token)
        self._server = ServingServer([self._dispatcher], self._limits, metrics, guard)
        await asyncio.gather(*self._dispatcher.start())
        await self._listen(self._server.app, handler_cancellation=True)
        await self._dispatcher.close()


class _ReplicaHere:
    """Replica in this process; a test decides when it is lost."""

    def __init__(
        self,
        translated: Callable[[Batch], list[Any]],
        checkpoint: Checkpoint,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._translated, self._pool = translated, pool
        self.status = ReplicaStatus(
            checkpoint=checkpoint.path.name, step=checkpoint.step, changes=0, damaged=[]
        )
        self.lost = asyncio.Event()

    async def listen(self) -> None:
        await self.lost.wait()
        raise ReplicaLostError("killed")

    async def translate(self, batch: Batch) -> ReplicaReport:
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._pool, self._translated, batch)
        return ReplicaReport(status=self.status, results=results)


def problem(answer: Answer) -> tuple[int, str]:
    """Return status and kind of a refusal, from its JSON."""
    assert answer.headers["Content-Type"].startswith("application/json")
    return answer.status, answer.json["kind"]


def newest(run: Path) -> int:
    """Return the step of a run's newest checkpoint."""
    return max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
