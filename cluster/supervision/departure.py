"""When the ranks of an attempt have to leave, and by when.

In: the reasons that come up, each with the seconds that ranks have. Out: whether a reason is new,
and whether the ranks have had their time.
"""

import math
from dataclasses import dataclass

from cluster.ray.cluster_view import Node

# Time before a drained node is gone by which its ranks have left or are killed.
DRAIN_MARGIN_SECONDS = 5.0


@dataclass(frozen=True)
class Reason:
    """Why ranks have to leave, and how many seconds they have for a checkpoint."""

    text: str
    seconds: float = math.inf


def asked_to_stop(request: str, seconds_ago: float, grace_seconds: float) -> Reason:
    """The reason of a request to stop; the grace counts from the request, not from now."""
    return Reason(request, grace_seconds - seconds_ago)


def drained(node: Node, now: float, grace_seconds: float) -> Reason:
    """The reason of a node that is being drained.

    Args:
        now: in seconds since the epoch, as the node's time to leave.
    """
    assert node.leaves_at is not None
    seconds = node.leaves_at - now - DRAIN_MARGIN_SECONDS
    return Reason(f"node {node.name} is being drained", min(grace_seconds, seconds))


class Departure:
    """The reasons that the ranks of an attempt have been told."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._leave_by = math.inf

    @property
    def has_begun(self) -> bool:
        return bool(self._told)

    def add(self, reason: Reason, now: float) -> bool:
        """Take note of a reason; return whether it is a new one."""
        if reason.text in self._told:
            return False
        self._told.add(reason.text)
        self._leave_by = min(self._leave_by, now + max(0.0, reason.seconds))
        return True

    def is_overdue(self, now: float) -> bool:
        return now > self._leave_by
