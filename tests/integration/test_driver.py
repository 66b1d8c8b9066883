"""A driver is killed or asked to stop; the same command continues the run.

Tests of interrupts, and of what an interrupted driver leaves, are in test_private_places.py.
"""

import json
import signal
import subprocess
import time
from dataclasses import replace

import pytest
from support.cluster.processes import HANG_SECONDS, wait_until
from support.cluster.story import Story
from support.cluster.strike import Strike
from support.command import TRANSLOOM, run_python
from support.faults.moments import MID_STEP
from support.leaving import LAST, OUTCOME, RAY, Leaving

from cluster.ray import cluster_view
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics

OPTIONS = ["cluster.ranks=2", "trainer.max_steps=60", "checkpoints.every_steps=10"]
ENDLESS = "trainer.max_steps=100000"


@pytest.fixture
def train(runs):
    """Return a function that starts `transloom train` in a separate process group."""

    def start(name: str, *options: str, environment=None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [TRANSLOOM, "train", runs.recipe, *OPTIONS, "--run", runs.folder / name, *options],
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_the_driver_does_not_import_torch(runs):
    """Importing torch takes seconds, during which a driver would not respond to signals."""
    program = (
        "import sys; sys.modules['torch'] = None; "
        "from transloom.cli.entry import main; sys.argv[0] = 'transloom'; main()"
    )
    options = [
        "trainer.max_steps=8",
        "checkpoints.every_steps=4",
        "checkpoints.memory_every_steps=3",
    ]
    run = runs.folder / "without-torch"
    done = run_python(program, "train", runs.recipe, *options, "--run", run)
    assert done.returncode == 0, done.stderr
    assert Checkpoint(list_checkpoints(run / "checkpoints")[-1]).header.step == 8


def wait_for_steps(runs, name: str, process: subprocess.Popen[str]) -> None:
    """Wait until the run has trained some steps, and fail if it has ended before."""
    record = runs.folder / name / "metrics.jsonl"
    wait_until(lambda: (record.exists() and record.stat().st_size) or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def test_a_killed_driver_loses_nothing_and_leaves_no_process(
    runs, one_rank, train, ray_head, orders
):
    address = ["cluster.ranks=1", "--address", runs.address]
    checkpoints = runs.folder / "killed" / "checkpoints"

    def kill(_):
        wait_until(lambda: list_checkpoints(checkpoints))
        process.kill()

    with Strike(orders, replace(MID_STEP, step=25), kill):
        process = train("killed", *address, "cluster.warm_spares=true")
        output = process.communicate(timeout=HANG_SECONDS)
    killed_at = time.monotonic()
    assert process.returncode == -signal.SIGKILL, output
    wait_until(lambda: not ray_head.actors())
    print(f"the last of its processes was gone {time.monotonic() - killed_at:.2f} s after kill -9")
    process = train("killed", *address, "--json")
    output, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, errors
    assert json.loads(output)["outcome"] == "finished"
    assert runs.curve("killed") == one_rank.curve("one-rank")
    assert runs.digests("killed") == one_rank.digests("one-rank")
    events = {event["event"] for event in runs.lines("killed", "event")}
    assert events == {"resumed"}


def test_a_run_waits_for_a_head_that_is_silent_for_a_while(runs, one_rank, ray_head, monkeypatch):
    monkeypatch.setattr(cluster_view, "WARN_AFTER_SECONDS", 2.0)
    monkeypatch.setattr(cluster_view, "POLL_SECONDS", 0.1)
    run = RunFolder(runs.folder / "run")

    def step():
        lines = read_metrics(run.metrics)[-1:] if run.metrics.exists() else []
        return lines[0].step if lines else 0

    def away():
        log = run.log.read_text()
        return log.rfind("Ray's head has not answered for 2 s") > log.rfind("head answers again")

    def tell():
        wait_until(step)
        with ray_head.away():
            wait_until(away)
            reached = step()
            wait_until(lambda: step() >= reached + 30)
        wait_until(lambda: not away())
        wait_until(lambda: step() >= 60)

    story = Story(run, tell)
    result = runs.train(
        "run", *OPTIONS, "cluster.ranks=1", ENDLESS, "cluster.wait_for_head_seconds=59"
    )
    story.end()
    assert result.outcome == "stopped"
    assert runs.curve("run")[:60] == one_rank.curve("one-rank")
    assert not runs.lines("run", "event")[1:]  # the stop is the only event


@pytest.mark.chaos  # tests/run_store/test_lease.py has a shorter form
def test_a_second_driver_is_refused_with_the_first_driver_s_process(runs, train):
    endless = ["--address", runs.address, ENDLESS]
    first = train("shared", *endless)
    wait_for_steps(runs, "shared", first)
    second = train("shared", *endless)
    _, errors = second.communicate(timeout=HANG_SECONDS)
    assert second.returncode == 1
    assert f"is in use by process {first.pid} on " in " ".join(errors.split())
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=HANG_SECONDS)
    assert first.returncode == 75, errors
    steps = [line["step"] for line in runs.lines("shared")]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.chaos  # shorter form: the test of Ctrl-C in test_private_places.py
def test_a_driver_that_is_asked_to_stop_exits_with_75_after_a_checkpoint(runs, train):
    """The driver has a private Ray, which ends with the driver."""
    process = train("stopped", ENDLESS)
    wait_for_steps(runs, "stopped", process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 75, output
    steps = [line["step"] for line in runs.lines("stopped")]
    newest = max((runs.folder / "stopped" / "checkpoints").glob("step-*"))
    assert newest.name == f"step-{steps[-1]:08d}"


@pytest.fixture
def leaving(tmp_path) -> Leaving:
    return Leaving(tmp_path)


def test_signals_at_the_end_do_not_change_the_exit_code_of_a_finished_run(runs, train, leaving):
    options = ["--inline", "trainer.max_steps=2", "--json"]
    process = train("finished", *options, environment=leaving.environment)
    output, errors = process.communicate(timeout=HANG_SECONDS)
    stages = [stage for stage in leaving.stages if stage not in RAY]  # Ray shuts down unused
    assert stages == OUTCOME + LAST
    assert process.returncode == 0, errors
    assert json.loads(output)["outcome"] == "finished"


def test_a_signal_before_the_run_makes_the_command_exit_with_75():
    """The signal comes after the command's first lines, whose imports take a second or two."""
    program = """
import os, signal, sys
import transloom.cli.app

def find_spec(self, name, path=None, target=None):
    if name == "transloom.cli.train_run":
        os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, type("Finder", (), {"find_spec": find_spec})())
sys.argv = ["transloom", "train", "phrasebook"]
transloom.cli.app.main()
"""
    result = run_python(program)
    assert result.returncode == 75
    assert result.stderr == (
        "SIGTERM was received before the run began. Run the same command again to start it\n"
    )
