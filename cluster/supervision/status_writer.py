"""Write `status.json` and pass the state of processes to the listener, in a separate thread.

::

    the supervisor:  latest activity of ranks and workers  ──▶ a few attributes ─┐
    the run's folder: record, checkpoints, log             ──every two seconds───┴─▶ status.json

The supervisor only sets attributes, and never waits for a disk. The thread computes times when it
writes, so the status stays correct while the supervisor itself is blocked. The last status is on
the disk before the run is released, unless the file system hangs.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, Self

from cluster.data.workers import WorkerHeartbeat
from cluster.health.hang_detector import Position
from cluster.health.unfit_nodes import UnfitNodes
from cluster.supervision.run_listener import RunListener
from foundation.location import without_credentials
from foundation.periodic_thread import PeriodicThread
from run_store.folder import RunFolder
from run_store.lease import Lease
from run_store.record.recorded_status import (
    LAST_BYTES,
    MANY_BYTES,
    lasting_status,
    recorded_status,
    write_status,
)
from run_store.record.run_settings import flat_settings
from run_store.record.run_status_model import RunStatus
from run_store.record.vitals import (
    MAX_CHARACTERS,
    MAX_PROCESSES,
    MAX_RESTARTS,
    MAX_UNFIT_NODES,
    DataWorkerVitals,
    RankVitals,
    Restart,
    SupervisorState,
    Vitals,
)
from run_store.start import Start

WRITE_SECONDS = 2.0
# Seconds to wait for the last write, because the file system may hang.
LAST_WRITE_SECONDS = 10.0
STARTED_AGAIN = "another command has started the run again"


class _Rank(NamedTuple):
    node: str
    position: Position
    heartbeat_at: float  # time of its last heartbeat, by time.monotonic()


class _Worker(NamedTuple):
    sign: WorkerHeartbeat
    node: str | None
    polled_at: float  # time of this heartbeat's poll, by time.monotonic()


class StatusWriter(PeriodicThread):
    """Thread that writes the status of a run while the context lasts; for the run's owner only.

    Attributes:
        unfit: nodes that the run does not use.
        stop_reason: returns who or what has stopped the run; None if it was not stopped.
    """

    def __init__(self, run: RunFolder, lease: Lease, listener: RunListener) -> None:
        """Create a writer; entering the context writes the status for the first time."""
        super().__init__(
            "status",
            WRITE_SECONDS,
            lambda: self._write(over=False),
            at_end=lambda: self._write(over=True),
            join_seconds=LAST_WRITE_SECONDS,
        )
        self.unfit = UnfitNodes()
        self.stop_reason: Callable[[], str | None] = lambda: None
        self._run = run
        self._lease = lease
        self._listener = listener
        self._status = RunStatus()
        self._writing = threading.Lock()
        self._recorded_bytes: int | None = None  # size of the metrics file when it was read last
        self._started: dict[str, Any] = {}  # settings and nodes of the present start
        self._state: SupervisorState | None = None
        self._attempt = 0
        self._ranks: tuple[_Rank, ...] = ()
        self._workers: tuple[_Worker, ...] = ()
        self._being_written: int | None = None
        self._last_written = 0  # step of the last checkpoint written or given up
        self._memory_checkpoint: int | None = None
        self._restarts: tuple[Restart, ...] = ()
        self._price: float | None = None  # price of one rank for an hour
        self._counted_at = time.monotonic()  # time up to which rank hours are counted
        self._cause: str | None = None  # reason for the next start of ranks, if it is a restart

    def __enter__(self) -> Self:
        if self._run.has_begun():
            self._cause = STARTED_AGAIN
        self._status = lasting_status(self._run)
        if before := self._status.vitals:
            self._restarts = before.restarts
        self._write(over=False)
        return super().__enter__()

    def run_opens(self, recipe: dict[str, Any], start: Start) -> None:
        """Record the recipe, as JSON values, and the command of this start."""
        settings = flat_settings(recipe)
        self._started |= {"settings": settings, "start": start}
        if start.claim:
            self._started |= {"job_owner": start.claim.owner, "priority": start.claim.priority}
        self._price = settings.get("cluster.price_per_rank_hour")
        self._write(over=False)

    def state_begins(self, state: SupervisorState) -> None:
        """Record the current state of the supervisor."""
        self._state = state
        self.wake()

    def attempt_begins(self, nodes: Sequence[str]) -> None:
        """Record the start of ranks.

        Args:
            nodes: the name of each rank's node.
        """
        if self._cause is not None:
            restart = Restart(time=time.time(), cause=self._cause)
            self._restarts = (*self._restarts, restart)[-MAX_RESTARTS:]
            self._cause = None
        now = time.monotonic()
        self._started |= {"ranks": len(nodes), "nodes": dict(Counter(nodes))}
        self._ranks = tuple(_Rank(node, Position(), now) for node in nodes[:MAX_PROCESSES])
        self._being_written, self._last_written = None, 0
        self._attempt += 1

    def attempt_ends(self, cause: str) -> None:
        """Record that the ranks leave or are lost; new ranks may start later."""
        self._cause = without_credentials(cause).split("\n", 1)[0][:MAX_CHARACTERS]
        self._being_written = None

    def clear_ranks(self) -> None:
        """Record that no ranks exist, while the run waits for capacity or after its end."""
        self._ranks = ()

    def rank_moved(self, rank: int, position: Position) -> None:
        """Record the position that a rank has reported."""
        if rank < len(self._ranks):
            now, before = time.monotonic(), self._ranks
            moved = _Rank(before[rank].node, position, now)
            self._ranks = (*before[:rank], moved, *before[rank + 1 :])

    def update_ranks(self, heartbeats: Sequence[tuple[Position, float]]) -> None:
        """Record the positions of all ranks, and the seconds since the last heartbeat of each."""
        now = time.monotonic()
        self._ranks = tuple(
            _Rank(rank.node, position, now - silent)
            for rank, (position, silent) in zip(self._ranks, heartbeats, strict=False)
        )

    def update_workers(self, heartbeats: Sequence[WorkerHeartbeat], names: dict[str, str]) -> None:
        """Record the heartbeats of the data workers.

        Args:
            names: names of the nodes, by the first characters of their ids, as workers report them.
        """
        now = time.monotonic()
        self._workers = tuple(
            _Worker(sign, names.get(told.node, told.node) if told else None, now)
            for sign in heartbeats[:MAX_PROCESSES]
            for told in (sign.statistics,)
        )

    def memory_checkpoint(self, step: int | None) -> None:
        """Record the newest step that is complete in the memory of the nodes; 0 or None if none."""
        self._memory_checkpoint = step or None

    def checkpoint_begins(self, step: int) -> None:
        """Record that a rank has begun to write its part of a checkpoint."""
        if step > self._last_written:  # otherwise another rank has already failed to write it
            self._being_written = step

    def checkpoint_ends(self, step: int) -> None:
        """Record that a checkpoint is complete, or was given up."""
        self._last_written = max(step, self._last_written)
        if self._being_written is not None and self._being_written <= step:
            self._being_written = None

    def _write(self, *, over: bool) -> None:
        with self._writing:
            status = self._with_cost(self._recorded())
            if over and status.state == "stopped":
                status = status.model_copy(update={"reason": self.stop_reason()})
            vitals = status.vitals  # those of the previous owner until this owner has processes
            if self._state or self._attempt or self._cause not in (None, STARTED_AGAIN):
                vitals = self._vitals(over)
                self._listener.vitals(vitals)
            trained = status.in_training(vitals)
            status = status.model_copy(update={"vitals": vitals}) if over else trained
            self._status = status
            with suppress(OSError):  # the disk is full, or another process owns the run now
                write_status(self._run, status, self._lease.work, is_final=over)

    def _recorded(self) -> RunStatus:
        """Return the status according to the run's folder."""
        update, before, size = dict(self._started), self._recorded_bytes, 0
        with suppress(OSError):
            size = self._run.metrics.stat().st_size
        most = LAST_BYTES + size - (before or 0)
        if before is None or size < before:  # first call, or a restart has truncated the record
            update |= {"best": {}, "best_since_step": None, "scores": {}, "scores_step": None}
            update["numbers"], most = {}, MANY_BYTES
        self._recorded_bytes = size
        known = self._status.model_copy(update=update)
        return recorded_status(self._run, known, self._lease.owner, most)

    def _with_cost(self, status: RunStatus) -> RunStatus:
        """Add the time since the last status to the rank hours and the cost of the run."""
        now, before = time.monotonic(), self._counted_at
        self._counted_at = now
        hours = len(self._ranks) * (now - before) / 3600
        update = {"rank_hours": (status.rank_hours or 0.0) + hours}
        if self._price is not None:
            update["cost"] = (status.cost or 0.0) + hours * self._price
        return status.model_copy(update=update)

    def _vitals(self, over: bool) -> Vitals:
        now, state = time.monotonic(), None if over else self._state
        is_special = state not in (None, "training")
        return Vitals(
            time=time.time(),
            attempt=self._attempt,
            over=over,
            ranks=tuple(_rank_vitals(n, rank, now) for n, rank in enumerate(self._ranks)),
            data_workers=tuple(_worker_vitals(worker, now) for worker in self._workers),
            checkpoint_being_written=self._being_written,
            memory_checkpoint=self._memory_checkpoint,
            restarts=self._restarts,
            unfit_nodes=tuple(
                without_credentials(node.text)[:MAX_CHARACTERS]
                for node in islice(self.unfit, MAX_UNFIT_NODES)
            ),
            supervisor=state if is_special else None,
        )


def _rank_vitals(number: int, rank: _Rank, now: float) -> RankVitals:
    return RankVitals(
        rank=number,
        node=rank.node,
        phase=rank.position.phase,
        step=rank.position.step,
        silent_seconds=round(max(0.0, now - rank.heartbeat_at), 2),
    )


def _worker_vitals(worker: _Worker, now: float) -> DataWorkerVitals:
    sign = worker.sign
    return DataWorkerVitals(
        number=sign.number,
        node=worker.node,
        alive=sign.is_alive,
        windows_read=sign.statistics.windows_read if sign.statistics else None,
        silent_seconds=round(max(0.0, sign.silent_seconds + now - worker.polled_at), 2),
    )
