"""Replica: a process that translates batches with the weights of one run, as the server sees it.

::

    server                                              process
    Replica.translate ── Batch ───────────────────────▶ standard input    replica_process.py
    Replica.listen    ◀─ ReplicaReport: every second, ─ standard output
                         and after each batch

Both write JSON, one object per line. The process ends when its standard input does, so it never
outlives the server. A replica is lost when its process ends, when it stops reporting, or when a
batch takes too long. The process is then killed.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from pydantic import TypeAdapter

from foundation.file_model import FileModel
from foundation.garbage_collection import without_garbage_collection
from foundation.openmp import limit_openmp_spin
from transloom.inference.serving.batches import Batch
from transloom.inference.serving.messages import OneTranslation, Problem
from transloom.inference.serving.settings import ReplicaSettings

REPORT_SECONDS = 1.0
SILENT_SECONDS = 15.0  # time without a report after which a replica is lost
MAX_REPORT_BYTES = 2**28
SETTINGS = TypeAdapter(ReplicaSettings)
COMMAND = (
    *(sys.executable, "-P", "-c"),
    "from transloom.inference.serving.replica import run_process; run_process()",
)


class ReplicaLostError(Exception):
    """Raised when a replica is lost."""


class ReplicaStatus(FileModel):
    """Status of a replica.

    Attributes:
        checkpoint: name of the checkpoint folder whose weights the replica uses.
        changes: number of times that the replica has reloaded a checkpoint.
        damaged: problems of the checkpoints that the replica could not load.
    """

    checkpoint: str
    step: int
    changes: int
    damaged: list[str]


class ReplicaReport(FileModel):
    """Status of a replica, and the results of a batch if it has just translated one.

    Attributes:
        status: None if no checkpoint could be loaded.
        failure: why no checkpoint could be loaded.
        results: translations of each sentence of the batch, or the sentence's problem.
    """

    status: ReplicaStatus | None
    failure: str | None = None
    results: list[list[OneTranslation] | Problem] | None = None


class Replica:
    """Replica whose process runs and has loaded a checkpoint.

    Attributes:
        status: the last reported status.
    """

    status: ReplicaStatus

    def __init__(self, process: asyncio.subprocess.Process, hang_seconds: float) -> None:
        self._process, self._hang_seconds = process, hang_seconds
        self._report: asyncio.Future[ReplicaReport] = asyncio.Future()

    async def listen(self) -> NoReturn:
        """Receive the process's reports.

        Raises:
            ReplicaLostError: the replica is lost.
        """
        while True:
            await self.receive(SILENT_SECONDS)

    async def receive(self, seconds: float) -> None:
        """Receive the next report.

        Raises:
            ReplicaLostError: the process ended, has no checkpoint, or sent no report in time.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ReplicaLostError(f"it has not reported for {seconds:g} s") from None
        if not line:
            raise ReplicaLostError(f"it ended with exit code {await self._process.wait()}")
        report = ReplicaReport.model_validate_json(line)
        if report.status is None:
            raise ReplicaLostError(report.failure)
        self.status = report.status
        if report.results is not None and not self._report.done():
            self._report.set_result(report)

    async def translate(self, batch: Batch) -> ReplicaReport:
        """Return the report with a batch's results; the replica must be idle.

        Raises:
            ReplicaLostError: the batch takes longer than `hang_seconds`.
        """
        assert self._process.stdin is not None
        self._report = asyncio.Future()
        self._process.stdin.write(batch.model_dump_json().encode() + b"\n")
        try:
            async with asyncio.timeout(self._hang_seconds):
                return await self._report
        except TimeoutError:
            raise ReplicaLostError(
                f"its batch has taken more than {self._hang_seconds:g} s"
            ) from None


@asynccontextmanager
async def running_replica(settings: ReplicaSettings) -> AsyncIterator[Replica]:
    """Start a replica, and kill its process at the end of the context.

    Raises:
        ReplicaLostError: it can load no checkpoint, or has not done so within `hang_seconds`.
    """
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_REPORT_BYTES,
        # Signals of the terminal are for the server alone. A new session would do this, too, but
        # Linux schedules each session as a group, and requests would wait for two of them.
        process_group=0,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(SETTINGS.dump_json(settings) + b"\n")
        replica = Replica(process, settings.hang_seconds)
        await replica.receive(settings.hang_seconds)
        yield replica
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def run_process() -> None:
    """Run this process as a replica; see `replica_process`."""
    limit_openmp_spin()  # must be called before `replica_process` imports torch
    with without_garbage_collection():
        from transloom.inference.serving.replica_process import translate_input
    translate_input()
