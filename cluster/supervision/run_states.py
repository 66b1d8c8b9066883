"""States of a supervised run, with the data that each passes to the next.

    WaitForCapacity ──▶ CheckNodes ──▶ StartRanks ──▶ TrainRanks ──▶ EndAttempt ──▶ Ended
           ▲                 └───── unfit node, stop, error ─────▶        │
           └────────────────────────── restart ──────────────────────────┘

`RestartLoop` has a method for each state, which returns the next one. Any error leads to
`EndAttempt`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from cluster.ranks.group import RankGroup
from cluster.supervision.attempt import RankAttempt
from cluster.supervision.rank_jobs import RankStart
from run_store.record.vitals import SupervisorState
from trainer.job.rank_job import Outcome


@dataclass(frozen=True)
class WaitForCapacity:
    """No ranks exist: wait until the cluster has capacity for enough ranks.

    Attributes:
        nodes_left: whether nodes left during the last attempt. If too few nodes remain, the run
            leaves, too.
        damage_found: whether the last ranks found a damaged checkpoint. Ranks hash a checkpoint
            while they start; after damage, the supervisor hashes all files before the next start.
    """

    name: ClassVar[SupervisorState] = "waiting_for_capacity"
    node_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    nodes_left: bool = False
    damage_found: bool = False


@dataclass(frozen=True)
class CheckNodes:
    """The processes of ranks start: choose their checkpoint, and check their nodes meanwhile.

    Attributes:
        group: the ranks.
        node_names: the names of their nodes, by id.
        nodes_left: see `WaitForCapacity`.
        damage_found: see `WaitForCapacity`.
    """

    name: ClassVar[SupervisorState] = "checking_nodes"
    group: RankGroup
    node_names: Mapping[str, str]
    nodes_left: bool
    damage_found: bool


@dataclass(frozen=True)
class StartRanks:
    """All nodes are fit: give the ranks their job."""

    name: ClassVar[SupervisorState] = "starting_ranks"
    group: RankGroup
    node_names: Mapping[str, str]
    nodes_left: bool
    start: RankStart


@dataclass(frozen=True)
class TrainRanks:
    """The ranks have their job: supervise them until they end.

    The attempt records in the vitals when the ranks train, and when they are asked to leave.
    """

    name: ClassVar[SupervisorState] = "starting_ranks"
    group: RankGroup
    node_names: Mapping[str, str]
    start: RankStart
    attempt: RankAttempt

    @property
    def nodes_left(self) -> bool:
        return self.attempt.nodes_leave


@dataclass(frozen=True)
class EndAttempt:
    """End the ranks, then restart them or end the run.

    Attributes:
        before: the state that ends.
        outcome: the outcome of the ranks; "stopped" if they have none.
        error: the error that ends the state, or None.
    """

    name: ClassVar[SupervisorState] = "ending"
    before: WaitForCapacity | CheckNodes | StartRanks | TrainRanks
    outcome: Outcome = "stopped"
    error: BaseException | None = None


@dataclass(frozen=True)
class Ended:
    """The run is finished or leaves."""

    outcome: Outcome = "stopped"


RunState = WaitForCapacity | CheckNodes | StartRanks | TrainRanks | EndAttempt
