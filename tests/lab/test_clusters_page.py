"""The commands of docs/how-to/ssh-hosts.md on hosts, and the draining of a host."""

import os
import sys
from pathlib import Path

import pytest
from support.cluster.hosts import Hosts, Names
from support.cluster.processes import command_of, wait_until
from support.faults.moments import Moment
from support.pages import block
from support.recipes import tiny_values, write_yaml

from cluster.launchers.kubernetes import TEMPLATE

pytestmark = [pytest.mark.needs("namespaces"), pytest.mark.timeout(1800)]

BIN = Path(sys.executable).parent
HOME = "/tmp/home"  # each host has a separate /tmp
STEPS = 20


@pytest.fixture
def environment(orders):
    kept = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    path = f"{BIN}:{os.environ['PATH']}"
    mine = {"HOME": HOME, "USER": "lab", "PATH": path, "WANDB_MODE": "disabled"}
    patient = {"RAY_raylet_start_wait_time_s": "300"}  # 30, the default, may be too short
    return {**kept, **orders.environment, **mine, **patient}


@pytest.fixture
def hosts(tmp_path_factory):
    with Hosts(2, Names.NONE, shared=tmp_path_factory.getbasetemp()) as hosts:
        yield hosts


@pytest.fixture
def page(hosts, environment, runs):
    """Return a function: a code block of the page, with names of these hosts."""
    values = tiny_values(Path("datasets/phrasebook"), max_steps=STEPS) | {"name": "phrasebook"}
    values["cluster"] |= {"cpus_per_rank": 1}
    write_yaml(runs.folder / "phrasebook", values)

    def text(kind):
        found = block("how-to/ssh-hosts.md", f"bash {kind}").replace("/shared", str(runs.folder))
        return f"set -e; cd {runs.folder}\n" + found.replace("FIRST", hosts.addresses[0])

    return text


def start_ray(hosts, page, environment):
    hosts.run(0, "bash", "-c", page("hosts first"), env=environment)
    token = hosts.run(0, "cat", f"{HOME}/.ray/auth_token", env=environment)
    assert len(token) == 64
    copy = f"mkdir -p {HOME}/.ray && umask 077 && printf %s {token} >{HOME}/.ray/auth_token"
    hosts.run(1, "bash", "-c", copy, env=environment)
    hosts.run(1, "bash", "-c", page("hosts others"), env=environment)


def drivers(hosts):
    return [p for p in hosts.processes(0) if {"train", "--strict"} <= set(command_of(p))]


def test_a_killed_run_on_ssh_hosts_is_resumed(hosts, page, environment, runs, orders, one_host):
    """The driver is killed and started again."""
    start_ray(hosts, page, environment)
    at = orders.want(Moment("mid-step", "step", 12))
    train = page("hosts train").replace("--strict", "--strict checkpoints.every_steps=5")
    first = hosts.start(0, "bash", "-c", train, env=environment)
    wait_until(lambda: orders.look(at) or first.poll() is not None)
    for driver in drivers(hosts):
        driver.kill()
    orders.clear()
    output, _ = first.communicate()
    assert first.returncode in (-9, 137), output  # the exit code of the shell, or that of nsenter
    hosts.run(0, "bash", "-c", train, env=environment)
    runs.folder /= "runs"
    assert runs.curve("phrasebook") == one_host.curve("one-host")[:STEPS]
    (resumed,) = runs.lines("phrasebook", "event")
    assert resumed["event"] == "resumed"
    for host in (0, 1):  # only the user has access to Ray's files
        mode = hosts.run(host, "stat", "-c", "%a", "/tmp/tl-lab", env=environment)
        assert mode == "700\n"
        assert hosts.run(host, "sh", "-c", "ls -d /tmp/ray || true", env=environment).startswith(
            "ls: cannot"
        )


def test_a_drained_host_loses_its_rank_and_the_run_finishes(hosts, page, environment, runs, orders):
    """The drain script is that of a pod of ranks."""
    start_ray(hosts, page, environment)
    at = orders.want(Moment("mid-step", "step", 8))
    cpus = os.cpu_count()  # so that one rank fits on each host
    elastic = f"'cluster.ranks={{min: 1, max: 2}}' cluster.cpus_per_rank={cpus} --strict"
    train = page("hosts train").replace("--strict", elastic).replace("cluster.ranks=2 ", "")
    driver = hosts.start(0, "bash", "-c", train, env=environment)
    wait_until(lambda: orders.look(at) or driver.poll() is not None)
    script = "grace_seconds=300\n" + TEMPLATE.with_name("pod_drain.sh").read_text()
    variables = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": f"{hosts.addresses[0]}:6379"}  # KubeRay's
    drained = hosts.start(1, "bash", "-c", script, env=environment | variables)
    log = runs.folder / "runs" / "phrasebook" / "log.txt"
    wait_until(lambda: "drained" in log.read_text() or drained.poll() is not None)
    orders.clear()
    output, _ = drained.communicate()
    assert drained.returncode == 0, output
    titles = [" ".join(command_of(process)) for process in hosts.processes(1)]
    assert not any(title.startswith("ray::RankActor") for title in titles)
    output, _ = driver.communicate()
    assert driver.returncode == 0, output
    runs.folder /= "runs"
    assert [line["world_size"] for line in runs.lines("phrasebook")][0 :: STEPS - 1] == [2, 1]
