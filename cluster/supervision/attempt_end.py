"""Reasons to end an attempt while its ranks train, and the time that the ranks have to leave.

    stop request, drained node  ──▶ ShutdownReason ──▶ RankShutdown: is it new, is it overdue?
    more capacity, ScaleUpTimer ──┘

No class here queries the cluster: callers pass the time and their observations.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from cluster.ray.cluster_view import Node
from cluster.supervision.interval import Interval

# Seconds before a drained node disappears by which its ranks must have left. Later they are killed.
DRAIN_MARGIN_SECONDS = 5.0
CHECK_SECONDS = 5.0
# Seconds for which spare capacity must last, while the current ranks train, before more ranks
# start.
SCALE_UP_AFTER_SECONDS = 60.0
MORE_ROOM = "there is capacity for more ranks"


@dataclass(frozen=True)
class ShutdownReason:
    """Reason for ranks to leave, with the seconds that they have for a checkpoint."""

    text: str
    seconds: float = math.inf


def stop_request_reason(request: str, seconds_ago: float, grace_seconds: float) -> ShutdownReason:
    """Return the reason for a stop request; the grace period begins with the request, not now."""
    return ShutdownReason(request, grace_seconds - seconds_ago)


def node_drain_reason(node: Node, now: float, grace_seconds: float) -> ShutdownReason:
    """Return the shutdown reason for a node that is being drained.

    Args:
        now: seconds since the epoch, as in `node.leaves_at`.
    """
    assert node.leaves_at is not None
    seconds = node.leaves_at - now - DRAIN_MARGIN_SECONDS
    return ShutdownReason(f"node {node.name} is being drained", min(grace_seconds, seconds))


class RankShutdown:
    """Reasons for the ranks of an attempt to leave, and the earliest deadline among the reasons."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._leave_by = math.inf

    @property
    def has_begun(self) -> bool:
        return bool(self._told)

    def add(self, reason: ShutdownReason, now: float) -> bool:
        """Record a reason, and return whether it is new."""
        if reason.text in self._told:
            return False
        self._told.add(reason.text)
        self._leave_by = min(self._leave_by, now + max(0.0, reason.seconds))
        return True

    def is_overdue(self, now: float) -> bool:
        return now > self._leave_by


class ScaleUpTimer:
    """Timer that measures how long there has been capacity for more ranks."""

    def __init__(self) -> None:
        self._checks = Interval(CHECK_SECONDS)
        self._since: float | None = None

    def is_due(
        self,
        ranks: int,
        count_room: Callable[[], int],
        now: float,
        *,
        at_once: bool = False,
    ) -> bool:
        """Return whether there is capacity for more than `ranks` ranks.

        Args:
            at_once: False if the capacity must have lasted for `SCALE_UP_AFTER_SECONDS`.
        """
        if self._checks.has_passed(now):
            if count_room() <= ranks:
                self._since = None
            elif self._since is None:
                self._since = now
        lasting_seconds = 0.0 if at_once else SCALE_UP_AFTER_SECONDS
        return self._since is not None and now - self._since >= lasting_seconds
