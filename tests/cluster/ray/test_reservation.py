"""Placement of ranks: as many as fit, and again on the same nodes."""

from collections import Counter
from itertools import product
from types import SimpleNamespace

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ray.util.placement_group import placement_group_table

from cluster.config import ClusterConfig
from cluster.ray import reservation
from cluster.ray.cluster_view import Node
from cluster.ray.reservation import (
    Reservation,
    choose_nodes,
    max_possible_ranks,
    node_capabilities,
    room,
)
from cluster.ray.session import ray_session


def test_the_scarcest_resource_limits_the_room_of_a_node():
    assert room({"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0}) == 4
    assert room({"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}) == 1
    assert room({"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}) == 0
    assert room({}, {"CPU": 0.5}) == 0


def test_fractions_of_a_cpu_fill_a_node():
    assert room({"CPU": 0.3}, {"CPU": 0.1}) == 3
    assert room({"CPU": 0.2999}, {"CPU": 0.1}) == 2


def test_few_nodes_are_chosen_and_those_with_the_most_room_first():
    assert choose_nodes([], {"a": 1, "b": 3, "c": 2}, 4) == ["b", "b", "b", "c"]
    assert choose_nodes([], {"a": 1, "b": 1}, 4) == ["a", "b"]


def test_held_bundles_are_kept():
    assert choose_nodes(["a", "a"], {"a": 0, "b": 8}, 2) == ["a", "a"]
    assert choose_nodes(["a", "a"], {"a": 0, "b": 8}, 3) == ["a", "a", "b"]


def ways(rooms, count):
    """Return all ways to put this number of ranks on nodes, within the room of each node."""
    for counts in product(*(range(places + 1) for places in rooms.values())):
        if sum(counts) == count:
            yield Counter(dict(zip(rooms, counts, strict=True)))


def kept(way, held):
    return (way & held).total()


@given(
    held=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2), max_size=3),
    free=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), max_size=4),
    most=st.integers(1, 8),
)
def test_the_placement_is_as_good_as_the_best_of_all_placements(held, free, most):
    """Compare with all placements: packed on the fewest nodes besides held bundles, or even."""
    held = Counter(held)
    seats = sorted(held.elements())
    rooms = {node: held[node] + free.get(node, 0) for node in sorted({*held, *free})}
    count = min(most, sum(rooms.values()))
    packed = Counter(choose_nodes(seats, free, most, "pack"))
    spread = Counter(choose_nodes(seats, free, most, "spread"))
    for way in (packed, spread):
        assert way.total() == count
        assert all(way[node] <= rooms[node] for node in way)
    all_ways = list(ways(rooms, count))
    keeping = min(len(seats), most)
    assert kept(packed, held) == keeping
    fewest = min(len(+way) for way in all_ways if kept(way, held) == keeping)
    if len(seats) <= most:  # otherwise, any of the held bundles may be given up
        assert len(+packed) == fewest

    def unevenness(way):
        return sorted((way[node] for node in rooms), reverse=True)

    most_even = min(map(unevenness, all_ways), default=[])
    assert unevenness(spread) == most_even
    even = [way for way in all_ways if unevenness(way) == most_even]
    assert kept(spread, held) == max((kept(way, held) for way in even), default=0)


def test_a_further_rank_is_placed_on_a_held_node_with_capacity():
    assert choose_nodes(["a"], {"a": 1, "b": 3}, 2) == ["a", "a"]


def test_spread_places_ranks_evenly_on_uneven_nodes():
    assert choose_nodes([], {"a": 1, "b": 3, "c": 2}, 4, "spread") == ["a", "b", "b", "c"]
    assert choose_nodes([], {"a": 1, "b": 3, "c": 2}, 9, "spread") == ["a", "b", "b", "b", "c", "c"]


def node(name, free, labels=None):
    return Node(
        name, name, free, {"memory": 1e9, "node:10.0.0.1": 1.0, **free}, labels=labels or {}
    )


NODES = {
    "a": node("a", {"CPU": 8.0, "rack_a": 1.0}, {"pool": "train", "ray.io/node-id": "a"}),
    "b": node("b", {"CPU": 2.0, "GPU": 1.0}, {"pool": "train"}),
    "c": node("c", {"CPU": 8.0}, {"pool": "other"}),
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["a"] * 4),
        ({"placement": "spread"}, ["a", "a", "b", "c"]),
        ({"node_labels": {"pool": "train"}, "placement": "spread"}, ["a", "a", "b", "b"]),
        ({"node_labels": {"pool": "none"}}, []),
        ({"node_labels": {"pool": "train", "zone": "1"}}, []),
        ({"resources_per_rank": {"rack_a": 1}}, ["a"]),
        ({"resources_per_rank": {"rack_a": 0.25}}, ["a"] * 4),
        ({"resources_per_rank": {"rack_a": 1}, "node_labels": {"pool": "other"}}, []),
    ],
    ids=str,
)
def test_nodes_are_offered_by_the_resources_labels_and_placement_of_the_recipe(fields, expected):
    config = ClusterConfig(ranks=4, **fields)
    assert sorted(Reservation(config).offer(NODES, config.max_ranks)) == expected
    ever = max_possible_ranks(config, NODES.values())
    assert ever == len(expected) or (ever > 4 == len(expected))


def test_the_capabilities_of_nodes_are_listed_if_they_differ():
    assert node_capabilities(NODES.values()) == (
        "a has CPU 8, GPU 0, rack_a 1 and pool=train labels; "
        "b has CPU 2, GPU 1 and pool=train labels; c has CPU 8, GPU 0 and pool=other labels"
    )
    many = {str(n): node(f"{n:02}", {"CPU": 1.0}) for n in range(10)}
    assert node_capabilities(many.values()).endswith(
        "07 has CPU 1, GPU 0 and no labels; and 2 more nodes"
    )


@pytest.mark.parametrize(
    ("resources", "told"),
    [({"GPU": 1}, "cluster.gpus_per_rank sets a rank"), ({"rack": 0}, "greater than 0")],
)
def test_resources_with_a_dedicated_field_or_an_invalid_amount_are_refused(resources, told):
    with pytest.raises(ValidationError, match=told):
        ClusterConfig(resources_per_rank=resources)


def test_a_run_that_must_stop_does_not_wait_for_a_placement():
    answers = iter([False, False])
    must_stop = iter([False, True])
    seats = Reservation(ClusterConfig(), lambda: next(must_stop))
    seats._group = SimpleNamespace(wait=lambda seconds: next(answers))
    assert not seats._is_placed()
    assert list(answers) == []


def test_bundles_that_are_not_placed_in_time_are_released(ray_head, monkeypatch):
    """Otherwise Ray would place the bundles later, and no rank would use them."""
    monkeypatch.setattr(reservation, "PLACEMENT_SECONDS", 0.2)
    with ray_session(ray_head.address):
        (head,) = (node for node in ray.nodes() if node["Alive"])  # other nodes have left before
        too_many = ClusterConfig(ranks=1, cpus_per_rank=head["Resources"]["CPU"] + 1)
        before = placement_group_table().keys()
        assert not Reservation(too_many).take([head["NodeID"]])
        after = placement_group_table()
        states = [group["state"] for name, group in after.items() if name not in before]
    assert states == ["REMOVED"]
