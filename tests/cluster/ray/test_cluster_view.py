"""A head that does not answer: wait for it, report it once, and give up after a limit."""

import threading
from types import SimpleNamespace

import pytest

from cluster.errors import HeadLostError
from cluster.ray import cluster_view
from cluster.ray.cluster_view import WARN_AFTER_SECONDS, ClusterView, Node

WAIT_SECONDS = 45.0
HERE = Node("a", "node a", {}, {})


class Head:
    """Head that answers until `leave` is called."""

    def __init__(self):
        self._there, self._missed = threading.Event(), threading.Event()
        self.come()

    def come(self):
        self._there.set()

    def leave(self):
        """Return once a request is pending, so that no earlier answer can arrive."""
        self._missed.clear()
        self._there.clear()
        assert self._missed.wait(60)

    def ask(self):
        if not self._there.is_set():
            self._missed.set()
            self._there.wait()
        return {"a": HERE}


class Clock:
    """Clock that moves only when it is set."""

    def __init__(self):
        self.now = 0.0

    def poll(self):
        return self.now


@pytest.fixture
def head(monkeypatch):
    head = Head()
    monkeypatch.setattr(cluster_view, "_ask", head.ask)
    monkeypatch.setattr(cluster_view, "POLL_SECONDS", 0.01)
    yield head
    head.come()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cluster_view, "SuspendAwareClock", lambda: clock)
    return clock


@pytest.fixture
def notices():
    return []


@pytest.fixture
def view(head, clock, notices):
    """Yield the view of a head that no longer answers."""
    with ClusterView(WAIT_SECONDS, notices.append) as view:
        head.leave()
        view.nodes()
        yield view


def test_the_last_known_nodes_are_used_while_the_head_is_silent(view, clock, notices):
    clock.now += WARN_AFTER_SECONDS
    assert view.nodes() == {"a": HERE}
    assert notices == []


def test_the_loss_and_the_return_of_the_head_are_each_reported_once(view, clock, head, notices):
    for _ in range(3):
        clock.now += WARN_AFTER_SECONDS + 1
        view.nodes()
    (away,) = notices
    assert "has not answered for 5 s; waiting for it for up to 45 s in total" in away
    head.come()
    assert view.query_nodes() == {"a": HERE}
    view.query_nodes()
    assert notices == [away, "Ray's head answers again"]


def test_a_run_that_must_stop_does_not_wait_for_a_silent_head(view):
    answers = iter([False, True])
    assert view.query_nodes(lambda: next(answers)) == {"a": HERE}


def test_the_limit_for_a_silent_head_restarts_with_each_answer(view, clock, head, notices):
    for _ in range(2):
        clock.now += WAIT_SECONDS
        view.nodes()
        head.come()
        view.query_nodes()
        head.leave()
        view.nodes()
    assert len(notices) == 4


@pytest.mark.parametrize("ask", [ClusterView.nodes, ClusterView.query_nodes])
def test_a_head_that_is_silent_beyond_the_limit_is_lost(view, clock, ask):
    clock.now += WAIT_SECONDS + 1
    with pytest.raises(HeadLostError, match=r"for 45 s \(cluster.wait_for_head_seconds\)"):
        ask(view)


def ray_node(name, alive=True, **fields):
    return {
        "NodeID": name,
        "NodeManagerAddress": "10.0.0.1",
        "Alive": alive,
        "Resources": {"CPU": 8.0},
        "Labels": {"pool": "train"},
        **fields,
    }


@pytest.mark.parametrize(
    ("leaving", "leaves_at"),
    [({}, None), ({"a1b2c3d4e5": 1_500_250}, 1500.25), ({"a1b2c3d4e5": 0}, float("inf"))],
    ids=["stays", "leaves", "leaves at no time"],
)
def test_nodes_are_read_from_ray_s_answer(monkeypatch, leaving, leaves_at):
    """Ray gives deadlines in milliseconds, and 0 for no deadline."""
    nodes = [ray_node("a1b2c3d4e5"), ray_node("dead", alive=False), ray_node("new")]
    monkeypatch.setattr(cluster_view, "ray", SimpleNamespace(nodes=lambda: nodes))
    monkeypatch.setattr(cluster_view.private, "free_resources", lambda: {"a1b2c3d4e5": {"CPU": 2}})
    monkeypatch.setattr(cluster_view.private, "draining_nodes", lambda: leaving)
    found = cluster_view._ask()
    labels = {"pool": "train"}
    assert found == {
        "a1b2c3d4e5": Node(
            "a1b2c3d4e5", "10.0.0.1 (a1b2c3d4)", {"CPU": 2}, {"CPU": 8.0}, leaves_at, labels
        ),
        "new": Node("new", "10.0.0.1 (new)", {}, {"CPU": 8.0}, None, labels),
    }


def test_a_silent_head_is_reported_after_the_delay(view, clock, notices):
    clock.now = WARN_AFTER_SECONDS
    view.nodes()
    clock.now += 0.1
    assert notices == []
    view.nodes()
    assert len(notices) == 1
    clock.now = WAIT_SECONDS
    view.nodes()
    clock.now += 0.1
    with pytest.raises(HeadLostError):
        view.nodes()
    assert len(notices) == 1


def test_queried_nodes_are_from_a_request_made_after_the_call(head, clock, monkeypatch):
    asked = []
    monkeypatch.setattr(cluster_view, "_ask", lambda: asked.append(None) or {str(len(asked)): HERE})
    with ClusterView(WAIT_SECONDS, pytest.fail) as view:
        before = len(asked)
        (fresh,) = view.query_nodes()
    assert int(fresh) > before
