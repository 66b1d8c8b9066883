"""A clock that does not count the time in which its process was paused."""

from cluster.health.suspend_aware_clock import SuspendAwareClock


def test_the_clock_stops_while_the_process_is_paused():
    time = 100.0
    clock = SuspendAwareClock(lambda: time)
    time += 0.5
    assert clock.poll() == 0.5
    time += 3600
    assert clock.poll() == 1.5
