"""A run that is asked to stop, at any time and by any means, ends with a checkpoint."""

import os
import signal
import threading

import pytest
from support.cluster.processes import is_alive, wait_until
from support.cluster.sabotage import Saboteur, kill
from support.command import transloom

from run_store.folder import RunFolder

OPTIONS = ["trainer.max_steps=100000", "checkpoints.every_steps=10"]


@pytest.fixture
def folder(runs):
    return RunFolder(runs.folder / "run")


def at_step(folder, step, act):
    """Return a context in which `act` is called once the run has recorded a step."""

    def victims():
        act()
        return []

    return Saboteur(folder.metrics, step, victims)


def test_the_command_stop_ends_the_run_at_the_next_step(runs, folder):
    """test_data_workers.py stops a run with Ray in the same way."""

    def stop():
        assert transloom("stop", folder.path, cwd=folder.path).returncode == 0

    with at_step(folder, 15, stop):
        result = runs.train("run", *OPTIONS, inline=True)
    assert result.outcome == "stopped"
    assert result.step == runs.lines("run")[-1]["step"]
    assert not folder.stop_request.exists()


def test_a_stop_request_from_before_the_start_is_ignored(runs, folder):
    runs.train("run", "trainer.max_steps=2", inline=True)
    folder.ask_to_stop()
    assert runs.train("run", "trainer.max_steps=4", inline=True).outcome == "finished"


@pytest.mark.proof
def test_a_stop_request_while_the_ranks_start_is_obeyed(runs, folder, groups):
    def ask():
        wait_until(lambda: groups)
        kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    result = runs.train("run", *OPTIONS)
    thread.join()
    assert result.outcome == "stopped"
    assert result.step <= 1
    assert len(groups) == 1


def test_a_stop_request_while_the_run_recovers_is_obeyed(runs, folder, groups):
    """No rank is left to write a checkpoint, so the run ends with the last checkpoint."""

    def strike():
        kill(groups[0].processes[0].name.id)
        kill(os.getpid(), signal.SIGTERM)

    with at_step(folder, 25, strike):
        result = runs.train("run", *OPTIONS)
    assert result.outcome == "stopped"
    assert result.step % 10 == 0
    assert result.step > 0
    assert len(groups) == 1


@pytest.mark.chaos
def test_ranks_that_do_not_leave_in_time_are_killed(runs, folder, groups):
    """One rank is suspended and the other waits for it, so neither reaches the end of the step."""

    def strike():
        kill(groups[0].processes[1].name.id, signal.SIGSTOP)
        kill(os.getpid(), signal.SIGTERM)

    with at_step(folder, 25, strike):
        result = runs.train("run", *OPTIONS, "cluster.ranks=2", "cluster.grace_seconds=2")
    assert result.outcome == "stopped"
    assert result.step % 10 == 0
    assert "have not left in time" in folder.log.read_text()
    assert not any(is_alive(process.name.id) for process in groups[0].processes)


@pytest.mark.chaos
def test_a_second_signal_ends_the_run_at_once(runs, folder, groups):
    def strike():
        kill(groups[0].processes[1].name.id, signal.SIGSTOP)
        kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: "SIGINT was received" in folder.log.read_text())
        kill(os.getpid(), signal.SIGINT)

    with at_step(folder, 25, strike):
        result = runs.train("run", *OPTIONS, "cluster.ranks=2")
    assert result.outcome == "stopped"
    assert "asked to stop a second time" in folder.log.read_text()
