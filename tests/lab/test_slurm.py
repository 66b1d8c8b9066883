"""The script for Slurm in deploy/, as it is: a job whose time is over goes on where it was."""

import os
from pathlib import Path

import pytest
from support.cluster.hosts import Hosts, Names
from support.cluster.processes import command_of
from support.cluster.slurm import Slurm
from support.faults.moments import Moment, Orders

pytestmark = [
    pytest.mark.needs("namespaces"),
    pytest.mark.needs("slurm"),
    pytest.mark.timeout(900),
]

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "deploy" / "slurm" / "train.sbatch"
# The first rank stops at the first of these steps until Slurm's signal has come, which takes Slurm
# up to half a minute; it waits no longer than a minute at each.
HELD_STEPS = range(25, 45)
OPTIONS = ["cluster.ranks=2", "trainer.max_steps=60"]


@pytest.fixture
def orders(tmp_path):
    orders = Orders(tmp_path / "orders")
    for step in HELD_STEPS:
        orders.want(Moment("mid-step", "step", step), rank=0)
    return orders


@pytest.fixture
def slurm(tmp_path, tmp_path_factory, orders):
    environment = {
        **os.environ,
        **orders.environment,
        "WANDB_MODE": "disabled",
        "HOME": str(tmp_path),
    }
    with Hosts(1, Names.GOOD, shared=tmp_path_factory.getbasetemp()) as hosts:
        yield Slurm(hosts, tmp_path / "slurm", environment)


def test_a_job_whose_time_is_over_is_put_back_and_goes_on(slurm, runs, orders, one_host):
    submitted = [f"--chdir={PROJECT}", f"--output={runs.folder}/job.out", "--time=60"]
    train = [runs.recipe, *OPTIONS, "--run", runs.folder / "run"]
    job = slurm("sbatch", "--parsable", *submitted, SCRIPT, *train)
    at_first = f"step.rank-0.step-{HELD_STEPS[0]}"
    slurm.wait_until(lambda: orders.look(at_first))

    # Fewer minutes are left now than the script wants to be told before.
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=3")
    log = runs.folder / "run" / "log.txt"
    slurm.wait_until(lambda: "SIGTERM was received" in log.read_text())
    orders.clear()
    slurm.wait_until(lambda: slurm.job(job)["JobState"] == "PENDING")
    slurm.wait_until(lambda: not leftovers(slurm))
    assert slurm.job(job)["Restarts"] == "1"
    assert max(HELD_STEPS) > runs.lines("run")[-1]["step"] >= HELD_STEPS[0]
    assert "left with 75, after 0 restarts" in (runs.folder / "job.out").read_text()

    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60", "StartTime=now")
    slurm.wait_until(lambda: slurm.job(job)["JobState"] == "COMPLETED")
    assert slurm.job(job)["ExitCode"] == "0:0"
    assert "left with 0, after 1 restarts" in (runs.folder / "job.out").read_text()
    slurm.wait_until(lambda: not leftovers(slurm))
    assert runs.curve("run") == one_host.curve("one-host")
    assert runs.digests("run") == one_host.digests("one-host")
    preempted, resumed = runs.lines("run", "event")
    assert preempted["event"] == "preempted"
    assert resumed["event"] == "resumed"
    assert resumed["lost_steps"] == 0


def leftovers(slurm: Slurm) -> list[str]:
    """What runs on the host beside Slurm."""
    commands = [" ".join(command_of(process)) for process in slurm.host_processes()]
    return [command for command in commands if command and "slurm" not in command]
