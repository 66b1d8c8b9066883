"""A private Ray dies while a run trains: the run starts another Ray and continues."""

import os
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.cluster.processes import HANG_SECONDS, children, is_alive, wait_until
from support.cluster.sabotage import kill
from support.command import TRANSLOOM
from support.faults.moments import MID_STEP

from run_store.record.metrics_file import read_metrics

OPTIONS = ["trainer.max_steps=60", "checkpoints.every_steps=10"]


@pytest.fixture
def temporary():
    """Yield the directory of the run's private Ray."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def driver(runs, temporary, orders):
    """Yield a `transloom train` process with a private Ray, whose ranks can be held at a step."""
    process = subprocess.Popen(
        [TRANSLOOM, "train", runs.recipe, *OPTIONS, "--run", runs.folder / "run"],
        env={**os.environ, **orders.environment, "RAY_TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def at_step(runs, driver, step: int) -> list[psutil.Process]:
    """Return the processes of the run once it has recorded a step."""
    metrics = runs.folder / "run" / "metrics.jsonl"

    def has_come():
        return any(line.step >= step for line in read_metrics(metrics)[-3:])

    wait_until(lambda: driver.poll() is not None or (metrics.exists() and has_come()))
    assert driver.poll() is None, driver.communicate()
    return children(driver.pid)


def pids(processes: list[psutil.Process], name: str) -> list[int]:
    return [process.pid for process in processes if process.name().startswith(name)]


@pytest.mark.parametrize(
    "victim",
    [
        "raylet",
        pytest.param("ray::RuntimeEnvAgent", marks=pytest.mark.chaos),
        pytest.param("ray::DashboardAgent", marks=pytest.mark.chaos),
        pytest.param("gcs_server", marks=pytest.mark.chaos),
    ],
)
def test_a_run_continues_in_another_ray_when_its_private_ray_is_lost(
    runs, one_rank, driver, temporary, orders, victim
):
    order = orders.want(replace(MID_STEP, step=30))
    first_session = at_step(runs, driver, 25)
    wait_until(lambda: orders.look(order) or driver.poll() is not None)
    (process_id,) = pids(first_session, victim)
    kill(process_id)
    log_file = runs.folder / "run" / "log.txt"  # the loss may be noticed after more than 30 steps
    wait_until(lambda: "restarting Ray" in log_file.read_text() or driver.poll() is not None)
    orders.clear()
    output = driver.communicate(timeout=HANG_SECONDS)
    assert driver.returncode == 0, output
    assert runs.curve("run") == one_rank.curve("one-rank")
    assert runs.digests("run") == one_rank.digests("one-rank")
    (event,) = runs.lines("run", "event")
    assert event["event"] == "resumed"
    log = log_file.read_text()
    assert "Ray is lost on this machine" in log
    assert "restarting Ray" in log
    assert not [process for process in first_session if is_alive(process.pid)]
    assert list(temporary.iterdir()) == []  # no files of the lost Ray or of the next


@pytest.mark.chaos
def test_a_driver_whose_parent_has_ended_continues_in_another_ray(runs, temporary):
    """By default, Ray's client ends a process whose parent is process 1 when the raylet dies.

    Process 1 is the parent after a logout, under systemd, and in a container.
    """
    train = [TRANSLOOM, "train", runs.recipe, "trainer.max_steps=100000", "--run"]
    shell = subprocess.run(
        ["sh", "-c", '"$@" >/dev/null 2>&1 & echo $!', "sh", *train, runs.folder / "run"],
        env={**os.environ, "RAY_TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    driver = psutil.Process(int(shell.stdout))
    try:
        wait_until(lambda: (runs.folder / "run" / "metrics.jsonl").exists())
        if driver.ppid() != 1:
            pytest.skip("another process of this machine adopts orphans")
        kill(*pids(children(driver.pid), "raylet"))
        log = runs.folder / "run" / "log.txt"
        wait_until(lambda: "restarting Ray" in log.read_text() or not is_alive(driver.pid))
        assert is_alive(driver.pid)
    finally:
        processes = [driver, *children(driver.pid)] if is_alive(driver.pid) else []
        for process in processes:
            kill(process.pid)


@pytest.mark.chaos
def test_a_stop_request_is_obeyed_when_ray_is_lost(runs, driver):
    processes = at_step(runs, driver, 25)
    driver.send_signal(signal.SIGTERM)
    for process_id in pids(processes, "raylet"):
        kill(process_id)
    output = driver.communicate(timeout=HANG_SECONDS)
    assert driver.returncode == 75, output
    assert "restarting Ray" not in (runs.folder / "run" / "log.txt").read_text()
    assert not [process for process in processes if is_alive(process.pid)]
