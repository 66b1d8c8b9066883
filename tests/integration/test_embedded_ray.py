"""A Ray of the run's own that dies while the run trains: it starts another one and goes on."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from support.cluster.processes import HANG_SECONDS, children, is_alive, wait_until
from support.cluster.sabotage import kill

from trainer.tracking.metrics import read_metrics

TRANSLOOM = Path(sys.executable).parent / "transloom"
OPTIONS = ["cluster.ranks=2", "trainer.max_steps=60", "checkpoints.every_steps=10"]


@pytest.fixture
def temporary():
    """Where the run's own Ray keeps its files."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def driver(runs, temporary):
    """`transloom train` with a Ray of its own."""
    process = subprocess.Popen(
        [TRANSLOOM, "train", runs.recipe, *OPTIONS, "--run", runs.folder / "run"],
        env={**os.environ, "RAY_TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def at_step(runs, driver, step: int) -> list[psutil.Process]:
    """The processes of the run once it has recorded a step."""
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
def test_a_run_goes_on_in_another_ray_when_its_own_is_lost(
    runs, undisturbed, driver, temporary, victim
):
    first_session = at_step(runs, driver, 25)
    (process_id,) = pids(first_session, victim)
    kill(process_id)
    output = driver.communicate(timeout=HANG_SECONDS)
    assert driver.returncode == 0, output
    assert runs.curve("run") == undisturbed.curve("undisturbed")
    assert runs.digests("run") == undisturbed.digests("undisturbed")
    (event,) = runs.lines("run", "event")
    assert event["event"] == "resumed"
    log = (runs.folder / "run" / "log.txt").read_text()
    assert "Ray is lost on this machine" in log
    assert "Ray is started anew" in log
    assert not [process for process in first_session if is_alive(process.pid)]
    assert list(temporary.iterdir()) == []  # neither of the lost one nor of the other


@pytest.mark.chaos
def test_a_request_to_stop_is_obeyed_when_ray_is_lost(runs, driver):
    processes = at_step(runs, driver, 25)
    driver.send_signal(signal.SIGTERM)
    for process_id in pids(processes, "raylet"):
        kill(process_id)
    output = driver.communicate(timeout=HANG_SECONDS)
    assert driver.returncode == 75, output
    assert "Ray is started anew" not in (runs.folder / "run" / "log.txt").read_text()
    assert not [process for process in processes if is_alive(process.pid)]
