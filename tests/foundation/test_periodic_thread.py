"""A thread that calls a function once per interval."""

import threading

import pytest

from foundation.periodic_thread import ExceptionLog, PeriodicThread


def test_the_thread_acts_repeatedly_and_once_more_at_the_end():
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


def test_the_first_call_comes_after_the_interval():
    acted = []
    with PeriodicThread("test", 600.0, lambda: acted.append(None)):
        pass
    assert acted == []


@pytest.mark.parametrize("seconds", [None, 0, 0.0])
def test_without_an_interval_nothing_is_called(seconds):
    with PeriodicThread("test", seconds, pytest.fail, at_end=pytest.fail) as periodic:
        assert not periodic._thread.is_alive()


@pytest.mark.parametrize("patience", [0.0, None])
def test_closing_waits_for_a_running_call_up_to_join_seconds(patience):
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


def test_at_once_makes_the_first_call_immediately():
    acted = threading.Event()
    with PeriodicThread("test", 600.0, acted.set, at_once=True):
        assert acted.wait(60)


def test_wake_calls_the_function_immediately():
    acted = threading.Event()
    with PeriodicThread("test", 600.0, acted.set) as periodic:
        for _ in range(3):
            periodic.wake()
            assert acted.wait(60)
            acted.clear()


def test_the_thread_continues_after_exceptions_and_logs_each_class_once(caplog):
    errors = iter([ValueError("a"), OSError("b"), ValueError("c"), ValueError("d")])
    over = threading.Event()

    def fail():
        if error := next(errors, None):
            raise error
        over.set()

    with PeriodicThread("test", 0.001, fail):
        assert over.wait(60)
    assert [(of.exc_info[0], of.exc_info[1].args) for of in caplog.records] == [
        (ValueError, ("a",)),
        (OSError, ("b",)),
    ]


def test_every_hundredth_exception_of_a_class_is_logged(caplog):
    log = ExceptionLog("the test")
    for number in range(201):
        log.add(ValueError(number))
    assert [of.exc_info[1].args for of in caplog.records] == [(0,), (100,), (200,)]


def test_pauses_grow_while_calls_fail_and_shrink_after_a_success():
    pauses, answers = [], iter([True] * 6 + [False, True])
    done = threading.Event()

    def fail():
        if (failing := next(answers, None)) is None:
            done.set()
            return
        if failing:
            raise ValueError

    thread = PeriodicThread("test", 0.001, fail)
    measured = thread._pause_seconds
    thread._pause_seconds = lambda: pauses.append(measured()) or 0.0
    with thread:
        assert done.wait(60)
    assert [round(pause * 1000) for pause in pauses[:8]] == [2, 4, 8, 16, 16, 16, 1, 2]


def test_a_thread_with_give_up_ends_after_ten_failures_in_a_row(caplog):
    calls, given_up = [], []

    def fail():
        calls.append(None)
        if len(calls) != 5:
            raise ValueError(len(calls))

    with PeriodicThread("test", 0.001, fail, give_up=given_up.append) as periodic:
        periodic._thread.join(60)
        assert periodic._pause_seconds() == 0.001
    assert [error.args for error in given_up] == [(15,)]
    assert len(calls) == 15
