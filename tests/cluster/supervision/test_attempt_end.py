"""End ranks within the shortest time that a reason allows, and grow only if capacity lasts."""

import math
from functools import partial

import pytest

from cluster.ray.cluster_view import Node
from cluster.supervision.attempt_end import (
    CHECK_SECONDS,
    SCALE_UP_AFTER_SECONDS,
    RankShutdown,
    ScaleUpTimer,
    ShutdownReason,
    node_drain_reason,
    stop_request_reason,
)
from cluster.supervision.interval import Interval


def node(leaves_in):
    return Node("a", "node a", {}, {}, 1000.0 + leaves_in)


@pytest.mark.parametrize(
    ("leaves_in", "seconds"), [(20.0, 15.0), (3.0, -2.0), (1000.0, 60.0), (math.inf, 60.0)]
)
def test_ranks_leave_a_drained_node_before_the_node_leaves(leaves_in, seconds):
    reason = node_drain_reason(node(leaves_in), now=1000.0, grace_seconds=60.0)
    assert reason == ShutdownReason("node node a is being drained", seconds)


def test_the_time_to_leave_counts_from_the_request():
    """Time has passed since the request, for example to verify a checkpoint."""
    assert stop_request_reason("SIGTERM was received", 12.0, grace_seconds=30.0).seconds == 18.0


def test_ranks_stay_without_a_reason_to_leave():
    departure = RankShutdown()
    assert not departure.has_begun
    assert not departure.is_overdue(1e9)


def test_a_repeated_reason_does_not_extend_the_deadline():
    departure = RankShutdown()
    assert departure.add(ShutdownReason("a", 10.0), now=100.0)
    assert departure.has_begun
    assert not departure.add(ShutdownReason("a", 500.0), now=105.0)
    assert not departure.is_overdue(110.0)
    assert departure.is_overdue(110.1)


@pytest.mark.parametrize(("seconds", "leave_by"), [(3.0, 103.0), (-2.0, 100.0), (99.0, 110.0)])
def test_the_reason_with_the_earliest_deadline_applies(seconds, leave_by):
    departure = RankShutdown()
    departure.add(ShutdownReason("a", 10.0), now=100.0)
    assert departure.add(ShutdownReason("b", seconds), now=100.0)
    assert not departure.is_overdue(leave_by)
    assert departure.is_overdue(leave_by + 0.1)


def test_leaving_for_more_ranks_has_no_deadline():
    departure = RankShutdown()
    departure.add(ShutdownReason("there is capacity for more ranks"), now=100.0)
    assert departure.has_begun
    assert not departure.is_overdue(1e9)


def grows_at(room, ranks=2, until=200):
    """Return the first second at which a run would grow, given the room at each second."""
    growth = ScaleUpTimer()
    for now in range(1, until):
        if growth.is_due(ranks, partial(room, now), now):
            return now
    return None


def test_a_run_grows_when_there_has_been_room_for_some_time():
    assert grows_at(lambda now: 3) == 1 + SCALE_UP_AFTER_SECONDS


def test_room_that_disappears_again_causes_no_growth():
    assert grows_at(lambda now: 3 if now % 50 < 40 else 2) is None


def test_room_for_only_the_current_ranks_causes_no_growth():
    assert grows_at(lambda now: 2) is None


def test_room_is_checked_at_a_fixed_interval():
    looks = []
    grows_at(lambda now: looks.append(now) or 2, until=100)
    assert looks == list(range(1, 100, int(CHECK_SECONDS)))


def test_an_interval_restarts_when_it_has_passed():
    interval = Interval(0.5)
    tenths = [tenth for tenth in range(20) if interval.has_passed(tenth / 10)]
    assert tenths == [0, 5, 10, 15]
