"""Offset of a node's clock from the driver's, from round trips as in NTP."""

import time
from collections.abc import Iterable
from typing import NamedTuple

from cluster.node_check.figures import ClockOffset


class RoundTrip(NamedTuple):
    """A question for the time and its answer.

    Attributes:
        asked, answered: the driver's time of the question and of the answer.
        node_time: the node's time in between.
    """

    asked: float
    node_time: float
    answered: float


def clock() -> float:
    """Return this node's time, in seconds since the epoch."""
    return time.time()


def offset_of(trips: Iterable[RoundTrip]) -> ClockOffset:
    """Return the offset according to the shortest round trip, which has the least error."""
    shortest = min(trips, key=lambda trip: trip.answered - trip.asked)
    return ClockOffset(
        seconds=shortest.node_time - (shortest.asked + shortest.answered) / 2,
        error_seconds=(shortest.answered - shortest.asked) / 2,
    )
