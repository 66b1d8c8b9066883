"""Pairs of faults and moments, except those that are impossible or equivalent to others.

A run gets one fault at all of its moments, one after another, because starting and ending a run
takes longer than a recovery. To use a separate run for each moment, set TRANSLOOM_FAULT_TABLE.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

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

# In the order in which a run reaches them.
MOMENTS = (START_UP, MID_STEP, VALIDATION, COPY, WRITE, COMMIT, RECOVERY)

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
    """Return whether a fault is possible at a moment, and differs there from other moments."""
    if moment is COMMIT:
        # A moment of the driver. For faults of ranks, workers and nodes, it is not special.
        return isinstance(fault, KilledDriver | KilledHead | Preemption | FullDisk)
    if isinstance(fault, DamagedCheckpoint):
        # At the start there is no checkpoint. During a recovery, it has been verified and is being
        # read.
        return moment not in (START_UP, RECOVERY)
    if isinstance(fault, KilledAfterNaN):
        return moment is not START_UP  # the start is before the NaN
    return True


@dataclass(frozen=True)
class Case:
    """A fault, and the moments at which it is applied to a run."""

    fault: Fault
    moments: tuple[Moment, ...]

    @property
    def name(self) -> str:
        """Return an id for pytest's option -k."""
        alone = f", {self.moments[0].name}" if len(self.moments) == 1 else ""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.fault.name}{alone}".lower())


def _cases(left_out: Callable[[Fault, Moment], bool] = lambda fault, moment: False) -> list[Case]:
    found = []
    for fault in FAULTS:
        moments = tuple(
            moment
            for moment in MOMENTS
            if is_meaningful(fault, moment) and not left_out(fault, moment)
        )
        if fault.strikes_once or "TRANSLOOM_FAULT_TABLE" in os.environ:
            found += [Case(fault, (moment,)) for moment in moments]
        elif moments:
            found.append(Case(fault, moments))
    return found


def _is_of_the_folder(fault: Fault) -> bool:
    return isinstance(fault, DamagedCheckpoint | FullDisk)


CASES = _cases()
# With memory checkpoints, a run may never read the damaged checkpoint. The driver's moments are the
# same as without memory checkpoints.
MEMORY_CASES = _cases(lambda fault, moment: moment is COMMIT or _is_of_the_folder(fault))
# Faults of the run's folder do not apply to a run in an object store.
STORE_CASES = _cases(lambda fault, moment: _is_of_the_folder(fault))
