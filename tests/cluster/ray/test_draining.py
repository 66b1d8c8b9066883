"""Draining the node on which a command runs."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from cluster.errors import ClusterError
from cluster.ray import draining
from cluster.ray.draining import RANK_TITLE, drain_own_node


@pytest.fixture
def node(monkeypatch):
    """A node with processes of these titles at each look, and what is run on it."""
    node = SimpleNamespace(titles=[], commands=[], code=0, joined=[], pauses=0)

    def processes(fields):
        found = node.titles.pop(0) if node.titles else []
        return [SimpleNamespace(info={"cmdline": title}) for title in found]

    def join(address, report_open_endpoints):
        node.joined.append(address)
        return nullcontext()

    def run(command, **options):
        node.commands.append(command)
        return SimpleNamespace(returncode=node.code, stdout="refused", stderr="")

    def sleep(seconds):
        node.pauses += 1

    context = SimpleNamespace(gcs_address="10.0.0.1:6379", get_node_id=lambda: "abc")
    monkeypatch.setattr(draining, "psutil", SimpleNamespace(process_iter=processes))
    monkeypatch.setattr(draining, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    monkeypatch.setattr(draining, "ray_session", join)
    monkeypatch.setattr(draining, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(draining, "time", SimpleNamespace(sleep=sleep))
    return node


RANK = [["python"], None, [RANK_TITLE]]


def test_a_node_with_ranks_is_drained_and_waited_for(node):
    node.titles = [RANK, RANK, RANK, [["python"], [f"grep {RANK_TITLE}"]]]
    drain_own_node(90)
    ((program, *arguments),) = node.commands
    assert program.endswith("/ray")
    assert arguments[0] == "drain-node"
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert options["--address"] == "10.0.0.1:6379"
    assert options["--node-id"] == "abc"
    assert options["--deadline-remaining-seconds"] == "90"
    assert options["--reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert (node.joined, node.pauses) == (["auto"], 2)


def test_a_node_without_ranks_is_left_alone(node):
    node.titles = [[["python"], None]]
    drain_own_node(90)
    assert (node.joined, node.commands, node.pauses) == ([], [], 0)


def test_a_cluster_that_refuses_is_told(node):
    node.titles, node.code = [RANK, RANK], 1
    with pytest.raises(ClusterError, match="refused to drain this node: refused"):
        drain_own_node(90)
    assert node.pauses == 0
