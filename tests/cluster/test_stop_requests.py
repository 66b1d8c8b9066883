"""How a run is asked to stop."""

import os
import signal

import pytest

from cluster.stop_requests import StopRequests
from trainer.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_wish_the_second_an_order(run, number):
    before = signal.getsignal(number)
    with StopRequests(run) as stop:
        assert stop.reason is None
        os.kill(os.getpid(), number)
        assert stop.reason == f"{number.name} was received"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_file_asks_once_and_is_taken_away(run):
    run.ask_to_stop()
    with StopRequests(run) as stop:
        assert stop.reason == f"{run.stop_request} was created"
        assert not run.stop_request.exists()
        assert stop.reason  # as long as this process trains
    with StopRequests(run) as stop:
        assert stop.reason is None


def test_a_file_from_before_is_forgotten(run):
    run.ask_to_stop()
    with StopRequests(run) as stop:
        stop.forget_file()
        assert stop.reason is None
