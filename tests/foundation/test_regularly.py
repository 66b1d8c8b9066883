"""What is done now and then in a thread."""

import threading

import pytest

from foundation.regularly import Regularly


def test_it_acts_again_and_again_and_once_more_at_the_end():
    events, often = [], threading.Event()

    def act():
        events.append("acts")
        if len(events) == 3:
            often.set()

    with Regularly("test", 0.001, act, at_end=lambda: events.append("ends")) as regularly:
        assert often.wait(60)
        assert regularly._thread.name == "test"
        assert regularly._thread.daemon
    assert not regularly._thread.is_alive()
    assert events[:3] == ["acts"] * 3
    assert events.count("ends") == 1
    assert events[-1] == "ends"


def test_it_waits_before_it_acts_first():
    acted = []
    with Regularly("test", 600.0, lambda: acted.append(None)):
        pass
    assert acted == []


@pytest.mark.parametrize("seconds", [None, 0, 0.0])
def test_never_is_no_thread_and_no_end(seconds):
    with Regularly("test", seconds, pytest.fail, at_end=pytest.fail) as regularly:
        assert not regularly._thread.is_alive()


@pytest.mark.parametrize("patience", [0.0, None])
def test_the_end_waits_for_the_thread_as_long_as_it_has_patience(patience):
    goes_on, acts = threading.Event(), threading.Event()

    def act():
        acts.set()
        goes_on.wait(60)

    with Regularly("test", 0.001, act, patience_seconds=patience) as regularly:
        assert acts.wait(60)
        if patience is None:
            goes_on.set()
    assert regularly._thread.is_alive() == (patience is not None)
    goes_on.set()
    regularly._thread.join(60)
