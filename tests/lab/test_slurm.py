"""Jobs of `transloom deploy slurm` on a real Slurm, also beyond their time limit."""

import os
import stat

import pytest
from support.cluster.hosts import Hosts, Names
from support.cluster.processes import command_of
from support.cluster.slurm import Slurm
from support.command import TRANSLOOM
from support.faults.moments import Moment, Orders

pytestmark = [
    pytest.mark.needs("namespaces"),
    pytest.mark.needs("slurm"),
    pytest.mark.timeout(1800),
]

# The first rank waits at the first of these steps until Slurm's signal arrives, which takes Slurm
# up to half a minute; it waits at most a minute at each step.
HELD_STEPS = range(25, 45)
OPTIONS = ["cluster.ranks=2", "trainer.max_steps=60", "cluster.slurm.time_limit_minutes=60"]
TWO_NODES = ["cluster.slurm.nodes=2", "cluster.cpus_per_rank=1"]


@pytest.fixture
def orders(tmp_path):
    orders = Orders(tmp_path / "orders")
    for step in HELD_STEPS:
        orders.want(Moment("mid-step", "step", step), rank=0)
    return orders


@pytest.fixture
def hosts(request, tmp_path_factory):
    with Hosts(request.param, Names.GOOD, shared=tmp_path_factory.getbasetemp()) as hosts:
        yield hosts


@pytest.fixture
def slurm(hosts, tmp_path, orders):
    # Tokens of other tests are left out, because each job creates its token.
    environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    environment |= {**orders.environment, "WANDB_MODE": "disabled", "HOME": str(tmp_path)}
    return Slurm(hosts, tmp_path / "slurm", environment)


def submit(slurm, runs, name, *overrides):
    command = [TRANSLOOM, "deploy", "slurm", runs.recipe, *overrides]
    command += ["--run", runs.folder / name, "--submit"]
    return slurm("env", f"--chdir={runs.folder}", *command)


def until_in_state(slurm, job, state):
    slurm.wait_until(lambda: slurm.job(job)["JobState"] == state)


def is_asked_to_stop_and_goes_on(slurm, runs, orders, job, one_host):
    """Check that Slurm's signal stops the job, and that its second start ends as on one host."""
    # Leave two to three minutes: the script requests a signal three minutes before the end.
    hours, minutes, _ = map(int, slurm.job(job)["RunTime"].split(":"))
    slurm("scontrol", "update", f"JobId={job}", f"TimeLimit={hours * 60 + minutes + 3}")
    log = runs.folder / "run" / "log.txt"
    slurm.wait_until(lambda: "SIGTERM was received" in log.read_text())
    orders.clear()
    until_in_state(slurm, job, "PENDING")
    slurm.wait_until(lambda: not leftovers(slurm))
    assert slurm.job(job)["Restarts"] == "1"
    assert max(HELD_STEPS) > runs.lines("run")[-1]["step"] >= HELD_STEPS[0]
    assert "transloom train left with 75\n" in output(runs, job)

    # Start the job 5 s later, because slurmd takes a start in the second of the requeue for a
    # revoked one.
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60", "StartTime=now+5")
    until_in_state(slurm, job, "COMPLETED")
    assert slurm.job(job)["ExitCode"] == "0:0"
    assert "transloom train left with 0\n" in output(runs, job)
    slurm.wait_until(lambda: not leftovers(slurm))
    assert runs.curve("run") == one_host.curve("one-host")
    assert runs.digests("run") == one_host.digests("one-host")
    preempted, resumed = runs.lines("run", "event")
    assert preempted["event"] == "preempted"
    assert resumed["event"] == "resumed"
    assert resumed["lost_steps"] == 0


@pytest.mark.parametrize("hosts", [1], indirect=True)
def test_a_job_at_its_time_limit_is_requeued_and_continues(slurm, runs, orders, one_host):
    job = submit(slurm, runs, "run", *OPTIONS)
    slurm.wait_until(lambda: orders.look(f"step.rank-0.step-{HELD_STEPS[0]}"))
    is_asked_to_stop_and_goes_on(slurm, runs, orders, job, one_host)


@pytest.mark.parametrize("hosts", [2], indirect=True)
def test_two_jobs_share_two_nodes(hosts, slurm, runs, orders, one_host):
    """The second job starts and ends while the first one trains on the same nodes."""
    job = submit(slurm, runs, "run", *OPTIONS, *TWO_NODES)
    slurm.wait_until(lambda: orders.look(f"step.rank-0.step-{HELD_STEPS[0]}"))
    assert slurm.job(job)["NodeList"] == "h[1-2]"
    for host in (0, 1):
        titles = [" ".join(command_of(process)) for process in hosts.processes(host)]
        assert sum(title.startswith("ray::RankActor") for title in titles) == 1, titles
    assert_nobody_sees_the_token(slurm, runs, job)

    second = submit(slurm, runs, "second", "cluster.ranks=2", "trainer.max_steps=5", *TWO_NODES)
    until_in_state(slurm, second, "COMPLETED")
    assert slurm.job(second)["NodeList"] == "h[1-2]"
    assert slurm.job(job)["JobState"] == "RUNNING"
    assert runs.curve("second") == one_host.curve("one-host")[:5]

    is_asked_to_stop_and_goes_on(slurm, runs, orders, job, one_host)
    assert "is open to other users" not in output(runs, job)
    assert [path.name for path in runs.folder.glob("*.slurm-*")] == []


ODD_FOLDERS = [
    *("plain", "a  b", "--uid=0 # no comment", "it's", 'a "quoted" one', "été", "tab\there"),
    *("star*[a]", "dollar$HOME`id`"),
]


@pytest.mark.parametrize("hosts", [1], indirect=True)
def test_a_job_runs_in_the_folder_from_which_it_is_submitted(slurm, runs):
    jobs = {}
    for name in ODD_FOLDERS:
        folder = runs.folder / name
        folder.mkdir()
        command = [TRANSLOOM, "deploy", "slurm", runs.recipe, "cluster.slurm.setup=[pwd, exit]"]
        jobs[name] = slurm("env", f"--chdir={folder}", *command, "--submit")
    assert len(jobs) == len(ODD_FOLDERS)
    for name, job in jobs.items():
        until_in_state(slurm, job, "COMPLETED")
        (log,) = (runs.folder / name).iterdir()
        assert log.name == f"tiny-{job}.out"
        assert log.read_text() == f"{runs.folder / name}\n"


def assert_nobody_sees_the_token(slurm, runs, job):
    (file,) = runs.folder.glob(f"run.slurm-{job}.*/token")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    token = file.read_text()
    assert len(token) == 64
    assert token not in slurm("scontrol", "show", "job", job, "--details")
    for process in slurm.host_processes():
        seen = [*command_of(process), *process.environ().values()]
        assert not any(token in word for word in seen), process


def output(runs, job):
    return (runs.folder / f"tiny-{job}.out").read_text()


def leftovers(slurm: Slurm) -> list[str]:
    """Return the commands that run on the hosts, except Slurm's."""
    commands = [" ".join(command_of(process)) for process in slurm.host_processes()]
    return [command for command in commands if command and "slurm" not in command]
