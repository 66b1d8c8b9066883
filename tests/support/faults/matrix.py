"""Which faults meet which moments: all do, but for those that could not or would mean nothing."""

import re

from support.faults.faults import (
    DamagedCheckpoint,
    Fault,
    FullDisk,
    HungRank,
    KilledAfterNaN,
    KilledDriver,
    KilledHead,
    KilledNode,
    KilledRank,
    KilledTogether,
    KilledWorkers,
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

FAULTS: tuple[Fault, ...] = (
    KilledRank(0),
    KilledRank(1),
    KilledTogether("all ranks and spares", "RankActor"),
    KilledTogether("rank 1 and its node's agent", "NodeAgent"),
    KilledWorkers("one data worker of two", 1),
    KilledWorkers("all data workers", 2),
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

# With memory checkpoints a run may never read the damaged checkpoint, and the driver's moments are
# those of a run without them.
MEMORY_CASES = [
    (fault, moment)
    for fault, moment in CASES
    if moment is not COMMIT and not isinstance(fault, DamagedCheckpoint | FullDisk)
]

# Faults of the folder mean nothing for a run in an object store.
STORE_CASES = [
    (fault, moment)
    for fault, moment in CASES
    if not isinstance(fault, DamagedCheckpoint | FullDisk)
]


def name_of(fault: Fault, moment: Moment) -> str:
    """For pytest -k."""
    return re.sub(r"[^a-z0-9]+", "-", f"{fault.name}, {moment.name}".lower())
