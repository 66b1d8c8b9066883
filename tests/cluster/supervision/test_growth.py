"""When room for more ranks is taken, and how seldom it is looked for."""

from functools import partial

from cluster.supervision.growth import CHECK_SECONDS, GROW_AFTER_SECONDS, Growth
from cluster.supervision.interval import Interval


def grows_at(room, ranks=2, until=200):
    """The first of the seconds at which a run would grow; ``room`` tells of each how much is."""
    growth = Growth()
    for now in range(1, until):
        if growth.is_due(ranks, partial(room, now), now):
            return now
    return None


def test_room_that_stays_is_taken_after_a_while():
    assert grows_at(lambda now: 3) == 1 + GROW_AFTER_SECONDS


def test_room_that_goes_again_is_not():
    assert grows_at(lambda now: 3 if now % 50 < 40 else 2) is None


def test_as_much_room_as_there_are_ranks_is_no_room():
    assert grows_at(lambda now: 2) is None


def test_it_is_looked_for_every_so_often():
    looks = []
    grows_at(lambda now: looks.append(now) or 2, until=100)
    assert looks == list(range(1, 100, int(CHECK_SECONDS)))


def test_an_interval_begins_anew_when_it_has_passed():
    interval = Interval(0.5)
    tenths = [tenth for tenth in range(20) if interval.has_passed(tenth / 10)]
    assert tenths == [0, 5, 10, 15]
