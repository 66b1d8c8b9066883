"""Data workers that a node's agent requests, without Ray."""

import pytest
from support.cluster.scripted_ray import DEAD, Answer, ScriptedActor, ScriptedRay

from cluster.data import node_layouts
from cluster.data.node_layouts import MAX_KEPT, NodeLayouts


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr(node_layouts, "ray", ScriptedRay())


def test_a_layout_is_requested_once_per_attempt():
    worker, other = ScriptedActor(), ScriptedActor()
    layouts = NodeLayouts()
    first = layouts.reference(worker, "one", 0, 7)
    assert layouts.reference(other, "one", 0, 7) is first
    first.come("a layout")
    assert layouts.reference(other, "one", 0, 7) is first
    assert layouts.reference(worker, "one", 1, 7) is not first
    assert layouts.reference(worker, "two", 0, 7) is not first
    assert worker.calls["layout"] == [(0, 7), (1, 7), (0, 7)]
    assert not other.calls


def test_a_failed_layout_request_is_sent_again():
    worker, other = ScriptedActor(layout=[Answer(DEAD)]), ScriptedActor()
    layouts = NodeLayouts()
    failed = layouts.reference(worker, "one", 0, 7)
    again = layouts.reference(other, "one", 0, 7)
    assert again is not failed
    assert other.calls["layout"] == [(0, 7)]
    assert layouts.reference(worker, "one", 0, 7) is again


def test_only_the_newest_layouts_are_kept():
    worker = ScriptedActor()
    layouts = NodeLayouts()
    for window in range(MAX_KEPT + 1):
        layouts.reference(worker, "one", 0, window)
    layouts.reference(worker, "one", 0, 1)
    assert len(worker.calls["layout"]) == MAX_KEPT + 1
    layouts.reference(worker, "one", 0, 0)
    assert len(worker.calls["layout"]) == MAX_KEPT + 2
