"""A rank on each of two hosts, with no variable set by hand, is the same run as on one host."""

import os
import secrets
import sys
from pathlib import Path

import pytest
from support.hosts import Hosts, Names

pytestmark = [pytest.mark.needs("namespaces"), pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
STEPS = 20
# A CPU for the rank and none beside it: so each host has one.
NODE = ["--num-cpus=1", f"--object-store-memory={200 * 2**20}", "--disable-usage-stats"]
TRAIN = ["cluster.ranks=2", "cluster.cpus_per_rank=1", f"trainer.max_steps={STEPS}"]


@pytest.fixture
def environment():
    """That of every program on the hosts: it names no network interface."""
    kept = {n: v for n, v in os.environ.items() if not n.endswith("_SOCKET_IFNAME")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {**kept, **token, "WANDB_MODE": "disabled"}


@pytest.mark.parametrize("names", Names, ids=lambda names: names.name.lower())
def test_hosts_train_whatever_their_names_lead_to(
    names, environment, runs, one_host, tmp_path_factory
):
    with Hosts(2, names, shared=tmp_path_factory.getbasetemp()) as hosts:
        head = f"{hosts.addresses[0]}:6379"
        hosts.run(0, BIN / "ray", "start", "--head", "--port=6379", *NODE, env=environment)
        hosts.run(1, BIN / "ray", "start", f"--address={head}", *NODE, env=environment)
        options = ["--run", runs.folder / "run", "--address", head]
        hosts.run(0, BIN / "transloom", "train", runs.recipe, *TRAIN, *options, env=environment)
    assert runs.curve("run") == one_host.curve("one-host")[:STEPS]
    assert runs.digests("run") == one_host.digests("one-host")[:STEPS]
