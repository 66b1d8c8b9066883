"""What happens to the driver: killed, asked to stop, interrupted; the same command goes on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import wait_until
from support.sabotage import Saboteur

TRANSLOOM = Path(sys.executable).parent / "transloom"
OPTIONS = ["cluster.ranks=2", "trainer.max_steps=60", "checkpoints.every_steps=10"]


@pytest.fixture
def train(runs):
    """Starts `transloom train` as a process that leads a group of its own."""

    def start(name: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [TRANSLOOM, "train", runs.recipe, *OPTIONS, "--run", runs.folder / name, *options],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def hit(runs, name: str, process: subprocess.Popen[str], number: int) -> None:
    """Send the process a signal at step 25 and wait for its end."""
    record = runs.folder / name / "metrics.jsonl"
    with Saboteur(record, 25, lambda: [process.pid], number) as saboteur:
        output = process.communicate(timeout=120)
    assert saboteur.hit, output


def test_a_killed_driver_loses_nothing_and_leaves_nobody_behind(runs, undisturbed, train, ray_head):
    address = ["--address", runs.address]
    process = train("killed", *address, "cluster.warm_spares=true")
    hit(runs, "killed", process, signal.SIGKILL)
    killed_at = time.monotonic()
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not ray_head.actors(), 20)
    print(f"the last of its processes was gone {time.monotonic() - killed_at:.2f} s after kill -9")
    process = train("killed", *address, "--json")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output)["outcome"] == "finished"
    assert runs.curve("killed") == undisturbed.curve("undisturbed")
    assert runs.digests("killed") == undisturbed.digests("undisturbed")
    events = {event["event"] for event in runs.lines("killed", "event")}
    assert events == {"resumed"}


def test_a_second_driver_is_refused_by_the_name_of_the_first(runs, train):
    endless = ["--address", runs.address, "trainer.max_steps=100000"]
    first = train("shared", *endless)
    record = runs.folder / "shared" / "metrics.jsonl"
    wait_until(lambda: record.exists() and record.stat().st_size, 120)
    second = train("shared", *endless)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 1
    assert f"is in use by process {first.pid} on " in " ".join(errors.split())
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 75, errors
    steps = [line["step"] for line in runs.lines("shared")]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.chaos  # the short form is the Ctrl-C below
def test_a_driver_that_is_asked_to_stop_leaves_75_and_a_checkpoint(runs, train):
    """With a Ray of its own, which dies with it."""
    process = train("stopped")
    hit(runs, "stopped", process, signal.SIGTERM)
    assert process.returncode == 75
    steps = [line["step"] for line in runs.lines("stopped")]
    newest = max((runs.folder / "stopped" / "checkpoints").glob("step-*"))
    assert newest.name == f"step-{steps[-1]:08d}"
    assert steps[-1] < 60


def test_a_ctrl_c_reaches_all_processes_of_the_terminal(runs, train):
    process = train("interrupted")
    record = runs.folder / "interrupted" / "metrics.jsonl"
    with Saboteur(record, 25, lambda: [-process.pid], signal.SIGINT) as saboteur:
        output = process.communicate(timeout=120)
    assert saboteur.hit
    assert process.returncode == 75, output
    assert list((runs.folder / "interrupted" / "checkpoints").glob("step-*"))
