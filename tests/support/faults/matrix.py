"""Which faults meet which moments: all do, but for those that could not or would mean nothing."""

import re

from support.faults.faults import (
    DamagedCheckpoint,
    Fault,
    FullDisk,
    HungRank,
    KilledActors,
    KilledAfterNaN,
    KilledDriver,
    KilledHead,
    KilledNode,
    KilledRank,
    KilledTogether,
    Preemption,
    StoppedRank,
)
from support.faults.moments import (
    COMMIT,
    COPY,
    MID_STEP,
    RECOVERY,
    START_UP,
    VALIDATION,
    WRITE,
    Moment,
)

MOMENTS = (START_UP, MID_STEP, COPY, WRITE, COMMIT, VALIDATION, RECOVERY)

ONE_WORKER = KilledActors("kill -9 of one data worker of two", "DataWorker", there=2, killed=1)
ALL_WORKERS = KilledActors("kill -9 of all data workers", "DataWorker", there=2, killed=2)

ALL_RANKS_AND_SPARES = KilledTogether("kill -9 of all ranks and spares", "RankActor")
RANK_AND_AGENT = KilledTogether("kill -9 of rank 1 and of its node's agent", "NodeAgent")

FAULTS: tuple[Fault, ...] = (
    KilledRank(0),
    KilledRank(1),
    ALL_RANKS_AND_SPARES,
    RANK_AND_AGENT,
    ONE_WORKER,
    ALL_WORKERS,
    KilledNode(),
    StoppedRank(),
    HungRank(),
    FullDisk(),
    DamagedCheckpoint(),
    KilledAfterNaN(),
    KilledDriver(),
    KilledHead(),
    Preemption(),
)


def is_meaningful(fault: Fault, moment: Moment) -> bool:
    """Whether a fault can strike at a moment, and differently from another one."""
    if moment is COMMIT:
        # The driver's moment. For ranks, workers and nodes it is one like any other.
        return isinstance(fault, KilledDriver | KilledHead | Preemption | FullDisk)
    if isinstance(fault, DamagedCheckpoint):
        # At the start there is none. During a recovery it has been verified, and is being read.
        return moment not in (START_UP, RECOVERY)
    if isinstance(fault, KilledAfterNaN):
        return moment is not START_UP  # which comes before the NaN
    return True


CASES = [(fault, moment) for fault in FAULTS for moment in MOMENTS if is_meaningful(fault, moment)]


def name_of(fault: Fault, moment: Moment) -> str:
    """For pytest -k."""
    return re.sub(r"[^a-z0-9]+", "-", f"{fault.name}, {moment.name}".lower())
