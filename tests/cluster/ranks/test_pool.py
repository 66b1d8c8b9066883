"""Which nodes ranks are offered."""

from cluster.config import ClusterConfig
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ranks.pool import RankSupply
from cluster.ray.cluster_view import Node


def test_a_node_without_the_runs_folder_gets_no_ranks():
    nodes = {name: Node(name, name, {"CPU": 1.0}, {"CPU": 4.0}, None) for name in "ab"}
    supply = RankSupply(ClusterConfig(ranks={"min": 1, "max": 2}), SuspendAwareClock(), {})
    assert supply.offer(nodes) == ["a", "b"]
    supply._agents.unfit.add("b")
    assert supply.offer(nodes) == ["a"]
