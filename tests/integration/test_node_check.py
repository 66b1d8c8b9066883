"""The node check on a cluster of several nodes on this machine, some of which are sick.

What is wrong with a node is in its environment: see support/faults/site.
"""

import re

import pytest
from support.cluster.processes import wait_until
from support.webhook_server import WebhookServer

from cluster.errors import ClusterError
from cluster.planning.plan import PlanOptions
from trainer.runs.folder import RunFolder
from trainer.runs.rank_nodes import read_rank_nodes
from transloom.cli.plan import plan_run, plan_text

OPTIONS = ["cluster.cpus_per_rank=1", "trainer.max_steps=3", "cluster.placement=spread"]
EVERYTHING = "wrong-bits slow-products slow-disk wrong-clock"


@pytest.fixture
def add_node(ray_head):
    """Add a node of two CPUs for ranks beside the head, with something wrong; return its id."""
    nodes = []

    def add(wrong=""):
        before = {node["node_id"] for node in alive(ray_head)}
        environment = {"TRANSLOOM_SICK_NODE": wrong}
        nodes.append(ray_head.add_node(2, "--labels=pool=checked", environment=environment))
        (new,) = {node["node_id"] for node in alive(ray_head)} - before
        return new[:8]

    wait_until(ray_head.is_alone)
    yield add
    for node in nodes:
        node.kill()


def alive(head):
    nodes = head.ask("v0/nodes")["data"]["result"]["result"]
    return [node for node in nodes if node["state"] == "ALIVE"]


def test_a_sick_node_is_named_with_its_figures_and_gets_no_ranks(runs, add_node, monkeypatch):
    healthy, sick = [add_node(), add_node()], add_node(EVERYTHING)
    with WebhookServer() as server:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("TRANSLOOM_HOOK_URL", server.url)
        runs.train(
            "run",
            *OPTIONS,
            "cluster.node_check=quick",
            "cluster.ranks={min: 2, max: 3}",
            "cluster.node_labels={pool: checked}",
            "tracking.notify.targets=[{kind: webhook, url_from: TRANSLOOM_HOOK_URL}]",
        )
    log = (runs.folder / "run" / "log.txt").read_text()
    print(log)
    assert 0
