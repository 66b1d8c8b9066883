"""A rank on each of two hosts, with no variable set by hand, is the same run as on one host.

And it goes on when one of them is not to be reached any more.
"""

import os
import secrets
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.cluster.hosts import Hosts, Names
from support.cluster.processes import wait_until
from support.faults.moments import MID_STEP, Orders

pytestmark = [pytest.mark.needs("namespaces"), pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
STEPS = 20
# A CPU for the rank and none beside it: so each host has one.
NODE = ["--num-cpus=1", f"--object-store-memory={200 * 2**20}", "--disable-usage-stats"]
TRAIN = ["cluster.ranks=2", "cluster.cpus_per_rank=1", f"trainer.max_steps={STEPS}"]

ELASTIC = [
    "cluster.ranks={min: 1, max: 2}",
    "cluster.cpus_per_rank=1",
    "cluster.deadlines.answer_seconds=10",
    "trainer.max_steps=60",
    "checkpoints.every_steps=10",
]


@pytest.fixture
def environment():
    """That of every program on the hosts: it names no network interface."""
    kept = {n: v for n, v in os.environ.items() if not n.endswith("_SOCKET_IFNAME")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {**kept, **token, "WANDB_MODE": "disabled"}


def start_ray(hosts, environment):
    """A cluster of two hosts; returns the address of its head."""
    head = f"{hosts.addresses[0]}:6379"
    hosts.run(0, BIN / "ray", "start", "--head", "--port=6379", *NODE, env=environment)
    hosts.run(1, BIN / "ray", "start", f"--address={head}", *NODE, env=environment)
    return head


@pytest.mark.parametrize("names", Names, ids=lambda names: names.name.lower())
def test_hosts_train_whatever_their_names_lead_to(
    names, environment, runs, one_host, tmp_path_factory
):
    with Hosts(2, names, shared=tmp_path_factory.getbasetemp()) as hosts:
        options = ["--run", runs.folder / "run", "--address", start_ray(hosts, environment)]
        hosts.run(0, BIN / "transloom", "train", runs.recipe, *TRAIN, *options, env=environment)
    assert runs.curve("run") == one_host.curve("one-host")[:STEPS]
    assert runs.digests("run") == one_host.digests("one-host")[:STEPS]


def test_a_run_does_without_a_host_whose_cable_is_cut(
    environment, runs, one_host, tmp_path_factory
):
    """Its rank lives on for a while, and holds the shared storage, but is heard of no more."""
    orders = Orders(runs.folder / "orders")
    order = orders.want(replace(MID_STEP, step=25))
    environment |= orders.environment
    run = runs.folder / "run"
    with Hosts(2, Names.NONE, shared=tmp_path_factory.getbasetemp()) as hosts:
        options = ["--run", run, "--address", start_ray(hosts, environment)]
        driver = hosts.start(
            0, BIN / "transloom", "train", runs.recipe, *ELASTIC, *options, env=environment
        )
        wait_until(lambda: orders.look(order) or driver.poll() is not None)
        hosts.cut(1)
        orders.clear()
        output, _ = driver.communicate()
    assert driver.returncode == 0, output
    log = (run / "log.txt").read_text()
    assert "is lost, which is no failure of the run" in log
    assert "resized from 2 to 1 rank" in log
    shapes = [line["world_size"] for line in runs.lines("run")]
    assert shapes == sorted(shapes, reverse=True)
    assert (shapes[0], shapes[-1]) == (2, 1)
    assert runs.digests("run") == one_host.digests("one-host")
    assert runs.curve("run") == pytest.approx(one_host.curve("one-host"), rel=1e-5)
