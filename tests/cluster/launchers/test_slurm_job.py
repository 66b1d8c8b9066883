"""A Slurm job's script, with an srun that starts its tasks on this machine.

transloom itself and scontrol are stand-ins that log their calls; `make lab` uses a real Slurm.
"""

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from support.cluster.processes import wait_until
from support.launchers import srun
from support.recipes import tiny_values, write_yaml

from cluster.launchers import slurm
from cluster.recipe import load_recipe

STAND_IN = Path(srun.__file__).with_name("transloom.sh")


class Job:
    """Running script of a job, with the log of its events."""

    def __init__(self, folder, nodes, plan, overrides=(), array=None, task=None, **more):
        self.folder = folder
        self.story_file = folder / "story"
        self.story_file.touch()
        programs = folder / "programs"
        programs.mkdir(exist_ok=True)
        (programs / "transloom").unlink(missing_ok=True)
        (programs / "transloom").symlink_to(STAND_IN)
        starts = f"#!/bin/bash\nexec {sys.executable} {srun.__file__} "
        self._program(programs / "srun", starts + '"$@"')
        self._program(programs / "scontrol", '#!/bin/bash\necho "scontrol $*" >>"$STORY"')
        recipe = write_yaml(folder / "a recipe.yaml", tiny_values(folder / "dataset"))
        changes = ["cluster.ranks=2", f"cluster.slurm.nodes={nodes}", *overrides]
        runs = slurm.runs_of(recipe, changes, array, None, folder / "runs")
        script = slurm.slurm_script(
            load_recipe(recipe, changes), recipe, runs, folder=folder, programs=programs
        )
        job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": str(nodes), **more}
        if task is not None:
            job |= {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": str(task)}
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script],
                env={**os.environ, **job, "STORY": str(self.story_file), "PLAN": plan},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @staticmethod
    def _program(path, text):
        path.write_text(text + "\n")
        path.chmod(0o755)

    @property
    def story(self):
        return self.story_file.read_text().splitlines()

    def until(self, line):
        wait_until(lambda: line in self.story or self.process.poll() is not None)
        assert line in self.story, self.log.read_text()

    def terminate(self):
        """Signal only the script itself, as Slurm does with --signal=B."""
        self.process.send_signal(signal.SIGTERM)

    def code(self):
        self.process.wait()
        return self.process.returncode

    def trained(self):
        return shlex.split((self.folder / "story.train").read_text())

    def leftovers(self):
        return [path.name for path in (self.folder / "runs").glob("*.slurm-*")]


@pytest.fixture
def job(tmp_path):
    jobs = []

    def start(*arguments, **options):
        jobs.append(Job(tmp_path, *arguments, **options))
        return jobs[-1]

    yield start
    for one in jobs:  # with the processes that they have started
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()


def test_all_nodes_join_before_the_driver_starts(job, tmp_path):
    one = job(3, "exit 0", overrides=["cluster.ranks=3", "cluster.niceness=2"])
    assert one.code() == 0, one.log.read_text()
    # The token is in no process's environment, and only its owner can read its file and folder.
    options = "--cpus 1 --gpus 0 --niceness 2"
    starts = [f"node {n} 0 600 700 token {options}" for n in range(3)]
    joins = [f"node {n} joins 10.0.0.1:1234" for n in (1, 2)]
    left = [f"node {n} left" for n in range(3)]
    assert sorted(one.story) == sorted([*starts, *joins, *left, "train"])
    assert one.story.index("train") > max(one.story.index(line) for line in joins)
    assert max(one.story.index(line) for line in starts + joins) < one.story.index(left[0])
    run = str(tmp_path / "runs" / "tiny")
    assert one.trained()[-4:] == ["--run", run, "--address", "10.0.0.1:1234"]
    # The driver does not inherit the pipe that closes when the script ends.
    assert "pipe:" not in (tmp_path / "story.files").read_text()
    assert one.leftovers() == []


def test_no_text_of_a_recipe_is_executed_by_the_shell(job, tmp_path):
    hostile = "tracking.project=it's $(touch hacked) `touch hacked`; touch hacked"
    one = job(1, "exit 0", overrides=[hostile])
    assert one.code() == 0, one.log.read_text()
    assert hostile in one.trained()
    assert str(tmp_path / "a recipe.yaml") in one.trained()
    assert not (tmp_path / "hacked").exists()
    assert not (Path.cwd() / "hacked").exists()


def test_an_array_task_trains_the_run_of_its_value(job, tmp_path):
    one = job(1, "exit 0", array="seed=7,8", task=1)
    assert one.code() == 0
    assert one.trained()[-3:] == ["seed=8", "--run", str(tmp_path / "runs" / "tiny,seed=8")]


@pytest.mark.parametrize("nodes", [1, 2])
def test_sigterm_reaches_the_driver_once_and_exit_code_75_requeues_the_job(job, nodes):
    one = job(nodes, "train on")
    one.until("train")
    one.terminate()
    assert one.code() == 75
    assert one.story.count("train TERM") == 1
    assert one.story[-1] == "scontrol requeue 17"
    assert one.story.count("node 1 left") == nodes - 1
    assert one.leftovers() == []
    assert "left with 75" in one.log.read_text()


def test_an_array_task_requeues_only_itself(job):
    """Slurm gives one of the tasks the id of the whole array."""
    one = job(1, "exit 75", array="seed=7,8", task=1)
    assert one.code() == 75
    assert one.story[-1] == "scontrol requeue 17_1"


@pytest.mark.parametrize("array", [None, "seed=7"])
def test_a_job_submitted_from_a_task_of_another_array_is_requeued_by_its_id(job, tmp_path, array):
    others = {"SLURM_ARRAY_JOB_ID": "3", "SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "9"}
    one = job(1, "exit 75", array=array, **others)
    assert one.code() == 75
    assert one.story[-1] == "scontrol requeue 17"


def test_starts_without_a_new_step_are_requeued_at_most_three_times(job, tmp_path):
    counted = tmp_path / "runs" / "tiny.requeues-17"
    for step in (4, 4, 4, 6, 6, 6):  # the fourth start has trained
        (tmp_path / "story.step").write_text(str(step))
        assert job(1, "exit 75").code() == 75
    assert (tmp_path / "story").read_text().count("scontrol requeue 17") == 6
    assert counted.exists()
    last = job(1, "exit 75")
    assert last.code() == 75
    assert last.story.count("scontrol requeue 17") == 6
    assert "cluster.slurm.time_limit_minutes" in last.log.read_text()
    assert not counted.exists()


@pytest.mark.parametrize("plan", ["exit 0", "stopped"])
def test_a_run_that_ends_leaves_no_requeue_count(job, tmp_path, plan):
    assert job(1, "exit 75").code() == 75
    assert list((tmp_path / "runs").glob("*.requeues-*"))
    job(1, plan).code()
    assert not list((tmp_path / "runs").glob("*.requeues-*"))


def test_a_driver_killed_by_sigterm_during_its_start_is_requeued(job):
    one = job(1, "deaf")
    one.until("train")
    one.terminate()
    assert one.code() == 75
    assert one.story[-1] == "scontrol requeue 17"


def test_a_driver_killed_by_a_sigterm_not_from_slurm_is_not_requeued(job):
    one = job(1, "exit 143")
    assert one.code() == 143
    assert "scontrol requeue 17" not in one.story


@pytest.mark.parametrize("code", [0, 1, 2])
def test_other_exit_codes_do_not_requeue_the_job(job, code):
    one = job(1, f"exit {code}")
    assert one.code() == code
    assert "scontrol requeue 17" not in one.story


def test_a_run_that_a_user_has_stopped_is_not_requeued(job):
    one = job(1, "stopped")
    assert one.code() == 75
    assert "scontrol requeue 17" not in one.story
    assert "the job does not go back to the queue" in one.log.read_text()


def test_a_stop_request_of_an_earlier_start_is_ignored(job, tmp_path):
    control = tmp_path / "runs" / "tiny" / "control"
    control.mkdir(parents=True)
    (control / "stop.taken").touch()
    assert job(1, "exit 75").code() == 75
    assert "scontrol requeue 17" in (tmp_path / "story").read_text()


def test_sigterm_before_the_nodes_are_up_requeues_the_job(job):
    """The signal arrives as soon as the first node's task runs; its head never becomes ready."""
    one = job(2, "slow head")
    wait_until(lambda: any(line.startswith("node 0 ") for line in one.story))
    one.terminate()
    assert one.code() == 75
    assert one.story[-1] == "scontrol requeue 17"
    assert "node 0 left" in one.story
    assert "train" not in one.story
    assert one.leftovers() == []


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("no head", "Ray's head has not started"),
        ("a node fails", "a node has not joined Ray's head at 10.0.0.1:1234"),
    ],
)
def test_nodes_that_do_not_start_end_the_job_with_an_error(job, plan, said):
    one = job(2, plan)
    assert one.code() == 1
    assert said in one.log.read_text()
    assert "train" not in one.story
    assert one.leftovers() == []


def test_nodes_end_when_the_script_is_killed(job):
    one = job(2, "train on")
    one.until("train")
    one.process.kill()
    wait_until(lambda: {"node 0 left", "node 1 left"} <= set(one.story))
