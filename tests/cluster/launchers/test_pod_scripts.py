"""The scripts that pods run, with a stand-in for transloom."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from support.cluster.processes import wait_until
from support.launchers import srun
from support.recipes import tiny_values, write_yaml

from cluster.launchers.kubernetes import placeholders

STAND_IN = Path(srun.__file__).with_name("transloom.sh")


@pytest.fixture
def pod(tmp_path):
    """Return a function that starts a script; its programs log their events to the file `story`."""
    values = tiny_values(Path("/shared/tiny"))
    values["cluster"]["kubernetes"] = {"image": "transloom:cpu"}
    recipe = write_yaml(tmp_path / "recipe.yaml", values)
    files = placeholders(recipe, [], "/shared/run", "tiny")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "transloom").symlink_to(STAND_IN)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "STORY": str(tmp_path / "story"),
    }
    started = []

    def start(script, plan=""):
        process = subprocess.Popen(
            ["bash", "-c", files[script]], env={**environment, "PLAN": plan}, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:  # killpg also kills their children
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def story(tmp_path):
    file = tmp_path / "story"
    return file.read_text().splitlines() if file.exists() else []


def test_a_run_that_exits_with_75_restarts_in_its_pod(pod, tmp_path):
    assert pod("train", "75 then 0").wait() == 0
    assert story(tmp_path) == ["train", "train"]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_other_exit_codes_become_the_job_s_exit_code(pod, tmp_path, code):
    assert pod("train", f"exit {code}").wait() == code
    assert story(tmp_path) == ["train"]


@pytest.mark.parametrize("plan", ["train on", "no run yet"])
def test_a_stopping_pod_waits_for_the_checkpoint(pod, tmp_path, plan):
    train = pod("train", plan)
    wait_until(lambda: story(tmp_path) == ["train"])
    assert pod("stop", plan).wait() == 0
    assert story(tmp_path) == ["train", "stop /shared/run", "train TERM"]
    assert train.wait() == 75  # the job ends; a retry would start in another pod


def test_a_pod_without_a_run_stops_at_once(pod, tmp_path):
    assert pod("stop").wait() == 0
    assert story(tmp_path) == []
