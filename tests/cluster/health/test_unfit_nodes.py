"""The list of nodes that a run does not use."""

from cluster.health.unfit_nodes import UnfitNode, UnfitNodes


def test_nodes_are_listed_in_the_order_in_which_they_were_added():
    unfit = UnfitNodes()
    assert (len(unfit), unfit.text) == (0, "")
    unfit.add("b", "Node b is slow", "3 GFLOP/s, the others 90")
    unfit.add("a", "Node a lacks the folder")
    assert [node.id for node in unfit] == ["b", "a"]
    assert "a" in unfit
    assert "c" not in unfit
    assert unfit.text == "Node b is slow (3 GFLOP/s, the others 90). Node a lacks the folder"


def test_a_node_keeps_its_first_reason():
    unfit = UnfitNodes()
    first = unfit.add("b", "Node b is slow")
    assert unfit.add("b", "Node b is wrong", "0f…") == first == UnfitNode("b", "Node b is slow")
    assert len(unfit) == 1
