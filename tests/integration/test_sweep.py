"""A sweep on a cluster, run as a user does; tests/transloom/cli/test_sweep.py covers planning."""

import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

from support.cluster.processes import HANG_SECONDS, wait_until
from support.command import TRANSLOOM
from support.faults.moments import MID_STEP


def test_a_stopped_sweep_continues_with_the_same_command(runs, orders):
    """The first command is preempted in the first of two runs, the second finishes both runs, and
    the third has nothing to do.
    """
    command = [TRANSLOOM, "sweep", runs.recipe, "seed=1,2", "trainer.max_steps=8", "--json"]
    command += ["--address", runs.address, "--folder", runs.folder / "runs"]

    def start():
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(process):
        output, errors = process.communicate(timeout=HANG_SECONDS)
        answer = json.loads(output)
        return process.returncode, {Path(run["run"]).name: run for run in answer["runs"]}, errors

    order = orders.want(replace(MID_STEP, step=4))
    process = start()
    try:
        wait_until(lambda: orders.look(order) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        log = runs.folder / "runs" / "tiny,seed=1" / "log.txt"
        wait_until(lambda: "SIGTERM was received" in log.read_text())
    finally:
        orders.clear()
    code, found, errors = end(process)
    assert code == 75, errors
    assert {name: run["state"] for name, run in found.items()} == {
        "tiny,seed=1": "stopped",
        "tiny,seed=2": "waiting",
    }
    assert found["tiny,seed=1"]["step"] == 4

    code, found, errors = end(start())
    assert code == 0, errors
    assert "tiny,seed=1: run 1 of 2 starts from step 4" in errors
    assert {(run["state"], run["step"]) for run in found.values()} == {("finished", 8)}
    assert found["tiny,seed=2"]["best"]["loss"]["step"] == 8

    code, found, errors = end(start())
    assert code == 0
    assert errors.count("already finished, at step 8") == 2
    assert "starts" not in errors
