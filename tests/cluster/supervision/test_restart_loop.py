"""What is said when there is no room for the ranks, or a node does not have the run's folder."""

import pytest

from cluster.config import ClusterConfig
from cluster.errors import ClusterError
from cluster.ray.cluster_view import Node
from cluster.supervision.restart_loop import going_without, no_room

LACKS = "Node b does not have the run's folder /runs/x. Share it, with --run PATH"


def test_what_the_cluster_has_is_said_when_room_was_waited_for_in_vain():
    config = ClusterConfig(ranks=3, wait_for_ranks_seconds=20)
    nodes = {name: Node(name, name, {"CPU": 1.0}, {"CPU": 4.0}, None) for name in "ab"}
    said = str(no_room("there is room for 2 ranks", config, nodes))
    assert said.startswith(
        "After 20 s there is room for 2 ranks, each with 1 CPU and 0 GPUs. The cluster has 8 CPUs "
        "and 0 GPUs in all"
    )


def test_a_run_goes_on_without_a_node_that_lacks_its_folder():
    (notice,) = going_without([LACKS], room=2, min_ranks=2)
    assert notice == f"{LACKS}. In this session the run does without this node"


def test_without_room_elsewhere_the_run_ends_and_names_the_node():
    with pytest.raises(ClusterError, match=f"^{LACKS}. {LACKS}$"):
        going_without([LACKS, LACKS], room=1, min_ranks=2)
