"""A thread that calls a function once per interval."""

import threading

import pytest

from foundation.periodic_thread import PeriodicThread


def test_it_acts_again_and_again_and_once_more_at_the_end():
    events, often = [], threading.Event()

    def act():
        events.append("acts")
        if len(events) == 3:
            often.set()

    with PeriodicThread("test", 0.001, act, at_end=lambda: events.append("ends")) as periodic:
        assert often.wait(60)
        assert periodic._thread.name == "test"
        assert periodic._thread.daemon
    assert not periodic._thread.is_alive()
    assert events[:3] == ["acts"] * 3
    assert events.count("ends") == 1
    assert events[-1] == "ends"


def test_it_waits_before_it_acts_first():
    acted = []
    with PeriodicThread("test", 600.0, lambda: acted.append(None)):
        pass
    assert acted == []


@pytest.mark.parametrize("seconds", [None, 0, 0.0])
def test_never_is_no_thread_and_no_end(seconds):
    with PeriodicThread("test", seconds, pytest.fail, at_end=pytest.fail) as periodic:
        assert not periodic._thread.is_alive()


@pytest.mark.parametrize("patience", [0.0, None])
def test_the_end_waits_for_the_thread_as_long_as_it_has_patience(patience):
    goes_on, acts = threading.Event(), threading.Event()

    def act():
        acts.set()
        goes_on.wait(60)

    with PeriodicThread("test", 0.001, act, join_seconds=patience) as periodic:
        assert acts.wait(60)
        if patience is None:
            goes_on.set()
    assert periodic._thread.is_alive() == (patience is not None)
    goes_on.set()
    periodic._thread.join(60)


def test_the_first_call_may_come_at_once():
    acted = threading.Event()
    with PeriodicThread("test", 600.0, acted.set, at_once=True):
        assert acted.wait(60)


def test_it_can_be_woken():
    acted = threading.Event()
    with PeriodicThread("test", 600.0, acted.set) as periodic:
        for _ in range(3):
            periodic.wake()
            assert acted.wait(60)
            acted.clear()


def test_an_exception_ends_it(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)

    def fail():
        raise ValueError

    with PeriodicThread("test", 0.001, fail) as periodic:
        periodic._thread.join(60)
    assert [of.exc_type for of in raised] == [ValueError]
