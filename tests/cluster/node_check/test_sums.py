"""The node or link at fault is found by sums over groups of nodes, which faults make wrong."""

from itertools import combinations

import pytest

from cluster.node_check.sums import (
    WrongSums,
    find_wrong_sums,
    rounds_of_pairs,
    sums_report,
)


class Cluster:
    """Nodes with some faults, each a set of nodes: sums over groups that contain it are wrong."""

    def __init__(self, count, *faults):
        self.nodes = [f"n{number}" for number in range(count)]
        self.faults = [{f"n{number}" for number in fault} for fault in faults]
        self.tests = []

    def are_right(self, groups):
        self.tests.append([len(group) for group in groups])
        members = [node for group in groups for node in group]
        assert len(set(members)) == len(members)  # the groups are tested at the same time
        return [not any(fault <= set(group) for fault in self.faults) for group in groups]

    def search(self):
        return find_wrong_sums(self.nodes, self.are_right)

    def report(self):
        return sums_report(self.search(), {node: f"node {node}" for node in self.nodes})


@pytest.mark.parametrize("count", range(1, 10))
def test_rounds_have_each_pair_once_and_each_node_at_most_once_in_a_round(count):
    nodes = [f"n{number}" for number in range(count)]
    rounds = list(rounds_of_pairs(nodes))
    found = [frozenset(pair) for pairs in rounds for pair in pairs]
    assert sorted(map(sorted, found)) == sorted(map(sorted, combinations(nodes, 2)))
    for pairs in rounds:
        assert len({node for pair in pairs for node in pair}) == 2 * len(pairs)


@pytest.mark.parametrize("count", range(2, 12))
def test_right_sums_need_one_test_and_name_nothing(count):
    cluster = Cluster(count)
    assert cluster.search() is None
    assert cluster.tests == [[count]]
    assert cluster.report().verdict is None


@pytest.mark.parametrize("count", range(3, 12))
def test_a_faulty_node_is_left_out(count):
    for faulty in range(count):
        report = Cluster(count, {faulty}).report()
        assert report.verdict.node == f"n{faulty}"
        assert report.verdict.fails
        assert f"Node node n{faulty} takes part" in report.text


@pytest.mark.parametrize("count", range(2, 12))
def test_a_faulty_link_names_its_pair_and_leaves_no_node_out(count):
    for one, other in combinations(range(count), 2):
        cluster = Cluster(count, {one, other})
        found = cluster.search()
        assert [set(pair) for pair in found.pairs] == [{f"n{one}", f"n{other}"}]
        report = cluster.report()
        assert report.verdict is None
        assert f"node n{min(one, other)}" in report.text


def test_one_of_two_nodes_is_not_left_out():
    assert Cluster(2, {0}).report().verdict is None


def test_two_faulty_nodes_are_reported_as_pairs():
    for nodes in ({0}, {1}), ({0}, {7}):
        report = Cluster(8, *nodes).report()
        assert report.verdict is None
        assert "none is left out" in report.text


def test_a_fault_of_many_nodes_is_reported_without_a_pair():
    cluster = Cluster(4, {0, 1, 2, 3})
    assert cluster.search() == WrongSums((), 6)
    assert "are wrong, but those of no pair" in cluster.report().text


def test_a_node_among_many_is_found_by_halves():
    cluster = Cluster(64, {37})
    assert cluster.search().faulty == "n37"
    assert len(cluster.tests) <= 10
