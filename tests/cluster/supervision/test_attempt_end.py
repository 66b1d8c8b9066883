"""Ranks get the least time of all reasons, and growth waits for room that lasts."""

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
def test_ranks_on_a_node_that_is_drained_leave_before_it_does(leaves_in, seconds):
    reason = node_drain_reason(node(leaves_in), now=1000.0, grace_seconds=60.0)
    assert reason == ShutdownReason("node node a is being drained", seconds)


def test_the_time_to_leave_counts_from_the_request():
    """A checkpoint was verified since then, say."""
    assert stop_request_reason("SIGTERM was received", 12.0, grace_seconds=30.0).seconds == 18.0


def test_no_rank_leaves_without_a_reason():
    departure = RankShutdown()
    assert not departure.has_begun
    assert not departure.is_overdue(1e9)


def test_a_reason_is_new_once():
    departure = RankShutdown()
    assert departure.add(ShutdownReason("a", 10.0), now=100.0)
    assert departure.has_begun
    assert not departure.add(ShutdownReason("a", 500.0), now=105.0)
    assert not departure.is_overdue(110.0)
    assert departure.is_overdue(110.1)


@pytest.mark.parametrize(("seconds", "leave_by"), [(3.0, 103.0), (-2.0, 100.0), (99.0, 110.0)])
def test_the_reason_with_the_least_time_counts(seconds, leave_by):
    departure = RankShutdown()
    departure.add(ShutdownReason("a", 10.0), now=100.0)
    assert departure.add(ShutdownReason("b", seconds), now=100.0)
    assert not departure.is_overdue(leave_by)
    assert departure.is_overdue(leave_by + 0.1)


def test_for_more_ranks_there_is_time():
    departure = RankShutdown()
    departure.add(ShutdownReason("there is capacity for more ranks"), now=100.0)
    assert departure.has_begun
    assert not departure.is_overdue(1e9)


def grows_at(room, ranks=2, until=200):
    """Return the first second at which a run would grow; ``room`` gives the room at each."""
    growth = ScaleUpTimer()
    for now in range(1, until):
        if growth.is_due(ranks, partial(room, now), now):
            return now
    return None


def test_room_that_stays_is_taken_after_a_while():
    assert grows_at(lambda now: 3) == 1 + SCALE_UP_AFTER_SECONDS


def test_room_that_goes_again_is_not():
    assert grows_at(lambda now: 3 if now % 50 < 40 else 2) is None


def test_as_much_room_as_there_are_ranks_is_no_room():
    assert grows_at(lambda now: 2) is None


def test_it_is_looked_for_every_so_often():
    looks = []
    grows_at(lambda now: looks.append(now) or 2, until=100)
    assert looks == list(range(1, 100, int(CHECK_SECONDS)))


def test_an_interval_begins_again_when_it_has_passed():
    interval = Interval(0.5)
    tenths = [tenth for tenth in range(20) if interval.has_passed(tenth / 10)]
    assert tenths == [0, 5, 10, 15]
