"""Write vitals.json and pass its content to the listener, in a separate thread.

    the supervisor:  latest activity of ranks and workers ──▶ a few attributes
    a thread:        every two seconds ──▶ `Vitals` ──▶ vitals.json, listener

The supervisor only sets attributes, and never waits for a disk. The thread computes times when it
writes, so the vitals stay correct while the supervisor itself is blocked.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Self

from cluster.data.workers import WorkerHeartbeat
from cluster.health.hang_detector import Position
from cluster.health.unfit_nodes import UnfitNodes
from cluster.supervision.run_listener import RunListener
from foundation.location import without_credentials
from foundation.periodic_thread import PeriodicThread
from trainer.runs.folder import RunFolder
from trainer.runs.vitals import (
    MAX_CHARACTERS,
    MAX_PROCESSES,
    MAX_RESTARTS,
    MAX_UNFIT_NODES,
    DataWorkerVitals,
    RankVitals,
    Restart,
    SupervisorState,
    Vitals,
    read_vitals,
    write_vitals,
)

WRITE_SECONDS = 2.0
# Seconds to wait for the last write, because the file system may hang.
LAST_WRITE_SECONDS = 2.0
STARTED_AGAIN = "another command has started the run again"


class _Rank(NamedTuple):
    node: str
    position: Position
    heartbeat_at: float  # time of its last heartbeat, by time.monotonic()


class _Worker(NamedTuple):
    sign: WorkerHeartbeat
    node: str | None
    polled_at: float  # time of this heartbeat's poll, by time.monotonic()


class VitalsWriter(PeriodicThread):
    """Thread that writes the activity of a run's processes while the context lasts."""

    def __init__(
        self, run: RunFolder, listener: RunListener, unfit: UnfitNodes | None = None
    ) -> None:
        """Create a writer; entering the context starts it.

        Args:
            unfit: nodes that the run does not use; None if it has no cluster.
        """
        super().__init__(
            "vitals",
            WRITE_SECONDS,
            lambda: self._write(over=False),
            at_end=lambda: self._write(over=True),
            join_seconds=LAST_WRITE_SECONDS,
        )
        self._run = run
        self._listener = listener
        self._state: SupervisorState | None = None
        self._attempt = 0
        self._ranks: tuple[_Rank, ...] = ()
        self._workers: tuple[_Worker, ...] = ()
        self._being_written: int | None = None
        self._last_written = 0  # step of the last checkpoint written or given up
        self._memory_checkpoint: int | None = None
        self._unfit = UnfitNodes() if unfit is None else unfit
        self._restarts: tuple[Restart, ...] = ()
        self._cause: str | None = None  # reason for the next start of ranks, if it is a restart

    def __enter__(self) -> Self:
        if self._run.has_begun():
            self._cause = STARTED_AGAIN
        with suppress(OSError, ValueError):  # a damaged file has no known restarts
            if before := read_vitals(self._run):
                self._restarts = before.restarts
        return super().__enter__()

    def state_begins(self, state: SupervisorState) -> None:
        """Record the current state of the supervisor."""
        self._state = state

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
        if not (self._state or self._attempt) and self._cause in (None, STARTED_AGAIN):
            return  # the vitals of the previous owner are more informative
        vitals = self._snapshot(over)
        write_vitals(self._run, vitals)
        self._listener.vitals(vitals)

    def _snapshot(self, over: bool) -> Vitals:
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
                for node in islice(self._unfit, MAX_UNFIT_NODES)
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
