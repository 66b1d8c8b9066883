"""Node checks by the driver, with actors on one real Ray node in place of several nodes.

The environment of an actor sets the fault of its node: see support/faults/site.
"""

import re
from types import SimpleNamespace

import pytest
import ray

from cluster.node_check import checks
from cluster.node_check.actor import NodeCheckActor
from cluster.node_check.checks import NodeChecks, NodeProcesses
from cluster.node_check.figures import ClockOffset, MeasuredNode
from cluster.node_check.matrix_product import measure_products
from cluster.ray.session import ray_session

READY_SECONDS = 300.0
SICK = {"a": "", "b": "", "unsteady": "unsteady-bits"}


@pytest.fixture(scope="module")
def session(ray_head):
    with ray_session(ray_head.address):
        yield


@pytest.fixture(scope="module")
def actors(session):
    """Return two healthy nodes, and one that computes wrong bits when it repeats a product."""
    started = {
        name: NodeCheckActor.options(
            runtime_env={"env_vars": {"TRANSLOOM_SICK_NODE": wrong}}
        ).remote(None)
        for name, wrong in SICK.items()
    }
    yield started
    for actor in started.values():
        ray.kill(actor)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Allow long answers, for busy machines."""
    monkeypatch.setattr(checks, "ANSWER_SECONDS", {"quick": 120.0, "full": 120.0})


def processes(actors, *names):
    return {name: NodeProcesses(f"node {name}", (actors[name],)) for name in names}


def test_a_node_is_checked_once_and_compared_with_later_nodes(actors):
    check = NodeChecks("quick", "cpu", 1, READY_SECONDS)
    first = check.check(processes(actors, "a", "b"), {})
    assert first.checked == ("a", "b")
    assert first.verdicts == ()
    assert all(abs(first.nodes[name].clock.seconds) < 1 for name in "ab")
    # The test process computes the same bits.
    (product,) = measure_products("cpu", 1, "quick")
    assert first.nodes["a"].figures.products[0].digest == product.digest
    unused = SimpleNamespace()  # without any method that a check could call
    known = {name: NodeProcesses(f"node {name}", (unused,)) for name in "ab"}
    second = check.check({**known, **processes(actors, "unsteady")}, {})
    assert second.checked == ("unsteady",)
    (verdict,) = second.verdicts
    assert (verdict.node, verdict.fails) == ("unsteady", True)
    assert "Node node unsteady computes different bits when it repeats" in verdict.text
    assert set(second.nodes) == {"a", "b", "unsteady"}
    header, row = second.table()
    assert header.split() == ["node", "free", "disk", "clock", "result"]
    assert re.fullmatch(r"node unsteady +[\d.]+ [GM]B +[+-]0\.\d{3} s +unfit", row)
    assert "quick check of 1 node in " in second.summary()
    assert check.check(known, {}).checked == ()


def test_a_full_check_measures_the_network(actors):
    """A process can join several groups in turn, as a rank does after its check."""
    check = NodeChecks("full", "cpu", 1, READY_SECONDS)
    nodes = processes(actors, "a", "b")
    report = check.check(nodes, {})
    assert all(report.nodes[name].link_bytes_per_second > 0 for name in nodes)
    assert report.warnings == ()
    assert report.table()[0].split()[3] == "network"
    warnings = []
    check._measure_network(nodes, warnings)
    assert warnings == []


def test_a_node_that_does_not_answer_or_raises_fails_and_a_lost_one_is_checked_later(
    actors, monkeypatch
):
    monkeypatch.setattr(checks, "ANSWER_SECONDS", {"quick": 0.0, "full": 0.0})
    check = NodeChecks("quick", "cpu", 1, READY_SECONDS)
    (verdict,) = check.check(processes(actors, "a"), {}).verdicts
    assert verdict.fails
    assert verdict.text.endswith("(no answer within 0 s)")
    monkeypatch.setattr(checks, "ANSWER_SECONDS", {"quick": 120.0, "full": 120.0})
    fails = NodeChecks("quick", "cuda", 1, READY_SECONDS)  # this machine has no GPU
    (verdict,) = fails.check(processes(actors, "b"), {}).verdicts
    assert "Node node b cannot be checked" in verdict.text
    assert "the check failed: " in verdict.figures
    lost = NodeCheckActor.remote(None)
    ray.kill(lost)
    check = NodeChecks("quick", "cpu", 1, READY_SECONDS)
    assert check.check({"l": NodeProcesses("l", (lost,))}, {}).checked == ()
    assert check.check({"l": NodeProcesses("l", (actors["a"],))}, {}).checked == ("l",)


def test_a_check_ends_early_when_the_run_must_stop(actors):
    check = NodeChecks("quick", "cpu", 1, READY_SECONDS)
    assert check.check(processes(actors, "a"), {}, give_up=lambda: True).checked == ()
    assert check.check(processes(actors, "a"), {}).checked == ("a",)


class FakeActor:
    """Actor whose links have scripted bandwidths; calls return their results directly."""

    def __init__(self, *bytes_per_second):
        self.bandwidths = list(bytes_per_second)
        self.tcp_rendezvous = SimpleNamespace(remote=lambda: "tcp://localhost:1")
        self.check_network = SimpleNamespace(remote=lambda placement: self.bandwidths.pop(0))


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that runs a full check of nodes whose links have scripted bandwidths."""
    # Fake actors return their results at once.
    fake = SimpleNamespace(get=lambda value, timeout: value, wait=lambda values, **_: (values, []))
    monkeypatch.setattr(checks, "ray", fake)

    def start(links, failures=None):
        check = NodeChecks("full", "cpu", 1, READY_SECONDS)
        measured = {name: MeasuredNode(name, failure=(failures or {}).get(name)) for name in links}
        clock = ClockOffset(0.25, 0.01)
        monkeypatch.setattr(check, "_measure", lambda nodes, folders: measured)
        monkeypatch.setattr(check, "_wait_until_ready", lambda nodes: True)
        monkeypatch.setattr(check, "_clocks", lambda nodes: dict.fromkeys(nodes, clock))
        actors = {name: FakeActor(*speeds) for name, speeds in links.items()}
        return check.check({name: NodeProcesses(name, (actors[name],)) for name in links}, {})

    return start


@pytest.mark.parametrize("speeds", [(10.0, 40.0), (40.0, 10.0)])
def test_slow_links_are_measured_again_and_the_higher_bandwidth_is_kept(scripted, speeds):
    report = scripted({"a": [100.0, 90.0], "b": speeds, "c": [100.0, 120.0]})
    best = {name: node.link_bytes_per_second for name, node in report.nodes.items()}
    assert best == {"a": 100.0, "b": 40.0, "c": 120.0}
    assert [verdict.node for verdict in report.verdicts] == ["b"] * (speeds[0] < 50)
    assert {node.clock for node in report.nodes.values()} == {ClockOffset(0.25, 0.01)}


def test_fast_links_are_measured_once_and_nodes_that_failed_are_left_out(scripted):
    report = scripted({"a": [100.0], "b": [90.0], "c": []}, {"c": "no answer within 30 s"})
    assert [verdict.node for verdict in report.verdicts] == ["c"]
    assert report.nodes["c"].link_bytes_per_second is None
