"""Bandwidth between nodes, which ranks on this machine represent."""

from collections import Counter
from itertools import pairwise

import pytest
from support.ranks import network_jobs

from cluster.node_check.figures import MeasuredNode
from cluster.node_check.network import exchange_rounds
from cluster.node_check.verdicts import compare


@pytest.mark.parametrize("nodes", range(2, 12))
def test_each_node_exchanges_with_its_neighbours_one_at_a_time(nodes):
    rounds = exchange_rounds(nodes)
    for pairs in rounds:
        assert max(Counter(node for pair in pairs for node in pair).values()) == 1
    exchanged = sorted(tuple(sorted(pair)) for pairs in rounds for pair in pairs)
    ring = [*range(nodes), 0] if nodes > 2 else [0, 1]
    assert exchanged == sorted(tuple(sorted(pair)) for pair in pairwise(ring))
    assert len(rounds) == (1 if nodes == 2 else 2 + nodes % 2)


@pytest.mark.long
def test_a_node_with_slow_links_is_named_and_its_neighbours_are_not(rank_pools):
    found = rank_pools(3).run(network_jobs.measured, 1)
    assert [sorted(links) for links in found] == [[1, 2], [0, 2], [0, 1]]
    nodes = {
        f"n{rank}": MeasuredNode(f"n{rank}", link_bytes_per_second=max(links.values()))
        for rank, links in enumerate(found)
    }
    (verdict,) = compare(nodes)
    assert (verdict.node, verdict.fails) == ("n1", True)
    assert "Node n1 has slow links to its neighbours" in verdict.text
