"""Where ranks are placed: as many as there is room for, and again where they were."""

from cluster.ray.reservation import choose_nodes, room


def test_room_is_what_every_resource_allows():
    assert room({"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0}) == 4
    assert room({"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}) == 1
    assert room({"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}) == 0
    assert room({}, {"CPU": 0.5}) == 0


def test_fractions_of_a_cpu_fill_a_node():
    assert room({"CPU": 0.3}, {"CPU": 0.1}) == 3
    assert room({"CPU": 0.2999}, {"CPU": 0.1}) == 2


def test_few_nodes_are_taken_the_roomiest_first():
    assert choose_nodes([], {"a": 1, "b": 3, "c": 2}, 4) == ["b", "b", "b", "c"]
    assert choose_nodes([], {"a": 1, "b": 1}, 4) == ["a", "b"]


def test_seats_that_are_held_are_kept():
    assert choose_nodes(["a", "a"], {"a": 0, "b": 8}, 2) == ["a", "a"]
    assert choose_nodes(["a", "a"], {"a": 0, "b": 8}, 3) == ["a", "a", "b"]
