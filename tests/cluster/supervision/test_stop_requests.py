"""Requests to stop a run."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from cluster.supervision.invocation import JOB_VARIABLE
from cluster.supervision.stop_requests import POLL_SECONDS, StopRequests
from run_store.folder import RunFolder
from run_store.start import StopOrder


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_requests_a_stop_and_a_second_signal_forces_it(run, number):
    before = signal.getsignal(number)
    with StopRequests(run) as stop:
        assert stop.reason is None
        os.kill(os.getpid(), number)
        assert stop.reason == f"{number.name} was received"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_second_signal_interrupts_once_and_only_while_requests_are_accepted(run):
    with StopRequests(run) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        stop.ignore_requests()
        os.kill(os.getpid(), signal.SIGTERM)
        stop.accept_requests()  # Ray was lost, and the run continues with another Ray
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_file_stops_the_run_once_and_is_removed(run):
    with StopRequests(run) as stop:
        run.ask_to_stop()
        assert stop.reason == f"{run.stop_request} was created"
        assert not run.stop_request.exists()
        assert stop.reason  # kept while this process trains
    with StopRequests(run) as stop:
        assert stop.reason is None


def test_a_request_file_from_before_the_start_is_ignored(run):
    run.ask_to_stop()
    with StopRequests(run) as stop:
        stop.forget_file()
        assert stop.reason is None
        assert not run.stop_request.exists()


@pytest.mark.parametrize("before", [False, True], ids=["anew", "again"])
def test_a_request_during_the_start_of_the_process_is_obeyed(run, before):
    """The process waits for the lease, and has not yet removed old requests."""
    if before:
        run.ask_to_stop()
        os.utime(run.stop_request, (1, 1))
    with StopRequests(run) as stop:
        run.ask_to_stop()
        stop.forget_file()
        assert stop.reason == f"{run.stop_request} was created"


def test_the_time_of_the_first_request_is_kept(run):
    with StopRequests(run) as stop:
        assert stop.asked_at is None
        before = time.monotonic()
        run.ask_to_stop()
        assert stop.reason
        asked_at = stop.asked_at
        assert before <= asked_at <= time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked_at == asked_at


@pytest.fixture
def immovable(monkeypatch):
    """Make control/ like another user's folder: files can be read, but not moved or removed."""

    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "rename", refuse)


def test_a_request_that_cannot_be_removed_is_obeyed_once(run, immovable):
    with StopRequests(run) as stop:
        run.ask_to_stop()
        assert stop.reason == f"{run.stop_request} was created"
    with StopRequests(run) as stop:
        stop.forget_file()
        assert stop.reason is None


def test_a_request_for_workers_that_cannot_be_removed_is_ignored(run, immovable):
    run.data_workers_request.parent.mkdir()
    run.data_workers_request.write_text("3\n")
    assert run.take_data_workers_request() is None


def test_the_reason_of_a_request_names_the_user_and_the_time(run):
    with StopRequests(run) as stop:
        os.kill(os.getpid(), signal.SIGTERM)  # from Ray, before the job's runner writes a file
        assert stop.reason == "SIGTERM was received"
        time.sleep(POLL_SECONDS)
        run.ask_to_stop(StopOrder(by="ada@host", at=0.0))
        assert stop.reason == "ada@host stopped the run at 1970-01-01 00:00:00 UTC"


def test_a_job_accepts_the_user_s_name_after_the_ranks_have_left(run, monkeypatch):
    with StopRequests(run) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        run.ask_to_stop(StopOrder(by="ada@host", at=0.0))
        assert stop.late_order() is None  # this process has no job
        monkeypatch.setenv(JOB_VARIABLE, "mine")
        assert "ada@host" in stop.late_order()
        assert stop.reason == stop.late_order()


def test_a_user_name_with_control_characters_is_ignored(run):
    run.stop_request.parent.mkdir()
    run.stop_request.write_text('{"by": "\\u001b[2J", "at": 0}')
    assert run.stop_order() is None
