"""Cost of failures: node losses per day, checkpoint intervals, and the share of effective time.

N nodes fail at a rate of λ = N·r together, a checkpoint every Δ stalls training for w, and a
restart takes u. A failure loses half an interval on average, so that the share of time in which
new steps are trained is (expected ETTR in Kokolis et al. 2024, arXiv 2410.21680)

    (1 − λ·(u + Δ/2)) / (1 + w/Δ)

The best interval is that of Daly 2006 ("A higher order estimate of the optimum checkpoint interval
for restart dumps"), whose first factor is that of Young 1974, with M = 1/λ:

    √(2wM) · (1 + √(w/2M)/3 + w/18M) − w
"""

import math
from dataclasses import dataclass

from cluster.planning.size import COPY_BYTES_PER_SECOND, background_seconds
from run_store.config import CheckpointsConfig
from trainer.memory.state_size import StateSize

DAY = 86_400.0
# Failures of 1,000 nodes of 8 GPUs in a day: Meta's cluster RSC-1 (arXiv 2410.21680). The training
# of Llama 3 had 3.8 (419 in 54 days on 2,048 nodes, arXiv 2407.21783).
DEFAULT_RATE = 6.5
RESTART_SECONDS = 60.0  # assumed time until ranks have loaded a checkpoint and continue


@dataclass(frozen=True)
class Tier:
    """One kind of checkpoint: on disk, or in the memory of the nodes.

    Attributes:
        interval_seconds: the recipe's interval; None if it has none, or the speed is unknown.
        effective: share of effective time if runs restart from such checkpoints alone; None without
            an interval.
        best_interval_seconds: the interval with the largest share of effective time, but at least
            the time that a checkpoint is processed in the background.
        best_effective: share of effective time with this interval.
    """

    interval_seconds: float | None
    effective: float | None
    best_interval_seconds: float
    best_effective: float


@dataclass(frozen=True)
class FailureCost:
    """Expected cost of failures.

    Attributes:
        nodes: number of nodes.
        per_1000_node_days: failures of 1,000 nodes in a day.
        losses_per_day: expected failures of the nodes in a day.
        restart_seconds: assumed duration of a restart.
        stall_seconds: assumed time for which one checkpoint stalls training.
        disk: checkpoints on disk.
        memory: copies in the memory of the nodes, which survive the loss of one node.
    """

    nodes: int
    per_1000_node_days: float
    losses_per_day: float
    restart_seconds: float
    stall_seconds: float
    disk: Tier
    memory: Tier


def failure_cost(
    nodes: int,
    per_1000_node_days: float,
    size: StateSize,
    intervals: CheckpointsConfig,
    step_seconds: float | None,
) -> FailureCost:
    """Estimate the cost of failures.

    Args:
        nodes: number of nodes, at least 1.
        per_1000_node_days: failures of 1,000 nodes in a day, more than 0.
        size: the size of a rank's state.
        intervals: the recipe's intervals.
        step_seconds: the duration of a step, or None if it is not known.
    """
    losses = nodes * per_1000_node_days / 1000
    stall = size.checkpoint_copy / COPY_BYTES_PER_SECOND

    def tier(every_steps: int, behind: float) -> Tier:
        best = max(best_interval(losses, stall), behind)
        given = every_steps * step_seconds if every_steps and step_seconds else None
        return Tier(
            given,
            effective_share(losses, given, stall) if given else None,
            best,
            effective_share(losses, best, stall),
        )

    return FailureCost(
        nodes,
        per_1000_node_days,
        losses,
        RESTART_SECONDS,
        stall,
        disk=tier(intervals.every_steps, 0.0),
        memory=tier(intervals.memory_every_steps, background_seconds(size)),
    )


def effective_share(losses_per_day: float, interval: float, stall: float) -> float:
    """Return the expected share of effective time, between 0 and 1.

    Args:
        losses_per_day: failures of all nodes in a day.
        interval: seconds between two checkpoints.
        stall: seconds for which one checkpoint stalls training.
    """
    lost = losses_per_day / DAY * (RESTART_SECONDS + interval / 2)
    return max(0.0, 1 - lost) / (1 + stall / interval)


def best_interval(losses_per_day: float, stall: float) -> float:
    """Return the interval in seconds with the largest share of effective time.

    The interval is at least `stall`, because training would not proceed with a shorter interval.
    """
    between = DAY / losses_per_day
    if stall >= 2 * between:
        return between
    share = math.sqrt(stall / (2 * between))
    return max(stall, math.sqrt(2 * stall * between) * (1 + share / 3 + share**2 / 9) - stall)
