"""The check from the driver: actors on one node of a real Ray stand for several nodes.

What is wrong with an actor's node is in its environment: see support/faults/site.
"""

import re
from types import SimpleNamespace

import pytest
import ray

from cluster.node_check import checks, verdicts
from cluster.node_check.actor import NodeCheckActor
from cluster.node_check.checks import NodeChecks, NodeProcesses
from cluster.node_check.figures import ClockOffset, MeasuredNode, NetworkFigures, NodeFigures
from cluster.node_check.matrix_product import measure_products
from cluster.node_check.report_text import summary, table
from cluster.ray.session import ray_session

READY_SECONDS = 300.0
SICK = {"a": "", "b": "", "c": "", "unsteady": "unsteady-bits", "adds": "wrong-sums"}


@pytest.fixture(scope="module")
def session(ray_head):
    with ray_session(ray_head.address):
        yield


@pytest.fixture(scope="module")
def actors(session):
    """Three healthy nodes, one with wrong bits when it repeats a product, one with wrong sums."""
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
    """Answers may take long on a busy machine, on which nothing is slow for a reason."""
    monkeypatch.setattr(checks, "ANSWER_SECONDS", {"quick": 120.0, "full": 120.0})
    monkeypatch.setattr(checks, "suspects", lambda nodes: set())


def processes(actors, *names):
    return {name: NodeProcesses(f"node {name}", (actors[name],)) for name in names}


def only_bits(report):
    """Verdicts that do not depend on the load of this machine."""
    return [verdict for verdict in report.verdicts if " slow " not in verdict.reason]


def test_a_node_is_checked_once_and_new_ones_are_compared_with_it(actors):
    check = NodeChecks("quick", "cpu", 1, READY_SECONDS)
    first = check.check(processes(actors, "a", "b"), {})
    assert first.checked == ("a", "b")
    assert only_bits(first) == []
    assert all(abs(first.nodes[name].clock.seconds) < 1 for name in "ab")
    # This process computes the same bits.
    (product,) = measure_products("cpu", 1, "quick")
    assert first.nodes["a"].figures.products[0].digest == product.digest
    unused = SimpleNamespace()  # has no method that a check could call
    known = {name: NodeProcesses(f"node {name}", (unused,)) for name in "ab"}
    second = check.check({**known, **processes(actors, "unsteady")}, {})
    assert second.checked == ("unsteady",)
    (verdict,) = only_bits(second)
    assert (verdict.node, verdict.fails) == ("unsteady", True)
    assert "Node node unsteady computes different bits when it repeats" in verdict.text
    assert set(second.nodes) == {"a", "b", "unsteady"}
    header, row, other_header, other_row = table(second)
    assert header.split()[:3] == ["node", "fp32", "memory"]
    assert other_header.split()[:3] == ["node", "clock", "free"]
    assert re.fullmatch(r"node unsteady +[+-]0\.\d{3} s +[\d.,]+ [GM]B +.*", other_row)
    assert re.fullmatch(r"node unsteady +[\d.]+ [GT]FLOP/s .* unfit", row)
    assert "quick check of 1 node in " in summary(second)
    assert check.check(known, {}).checked == ()


def test_the_network_is_measured_in_a_full_check(actors, monkeypatch):
    """A process can join more than one group, one after another, as a rank does after its check."""
    check = NodeChecks("full", "cpu", 1, READY_SECONDS)
    nodes = processes(actors, "a", "b")
    measure = check._measure
    monkeypatch.setattr(check, "_measure", lambda *given: measure(*given[:2], "quick"))
    report = check.check(nodes, {})
    assert report.all_reduce_bytes_per_second > 0
    assert all(report.nodes[name].link_bytes_per_second > 0 for name in nodes)
    assert report.warnings == ()
    assert check._measure_network(nodes, []) > 0


def test_a_node_with_which_sums_are_wrong_is_named(actors):
    check = NodeChecks("quick", "cpu", 1, READY_SECONDS)
    report = check.check_sums(processes(actors, "a", "adds", "b", "c"))
    assert (report.verdict.node, report.verdict.fails) == ("adds", True)
    right = check.check_sums(processes(actors, "a", "b"))
    assert (right.verdict, "are right" in right.text) == (None, True)
    one_of_two = check.check_sums(processes(actors, "a", "adds"))
    assert one_of_two.verdict is None
    assert "the pairs node a, node adds" in one_of_two.text


def test_sums_over_one_node_are_not_checked_and_a_lost_process_leaves_no_node_out(actors):
    check = NodeChecks("quick", "cpu", 1, READY_SECONDS)
    assert check.check_sums(processes(actors, "a")) is None
    assert check.check_sums(processes(actors, "a", "b"), give_up=lambda: True) is None
    lost = NodeCheckActor.remote(None)
    ray.kill(lost)
    nodes = {"l": NodeProcesses("l", (lost,)), **processes(actors, "a")}
    report = check.check_sums(nodes)
    assert report.verdict is None
    assert "were not checked: " in report.text


def test_a_node_that_does_not_answer_or_fails_is_named_and_a_lost_one_is_checked_later(
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


def test_a_slow_node_is_measured_again_and_may_have_been_disturbed(monkeypatch):
    """Scripted figures: the second measurement of b is fast, those of c never are."""
    monkeypatch.setattr(checks, "suspects", verdicts.suspects)
    speeds = {"a": [100], "b": [10, 99], "c": [10, 10, 11], "d": [101]}
    check = NodeChecks("quick", "cpu", 1, READY_SECONDS)
    levels = []

    def measure(nodes, folders, level):
        levels.append((level, sorted(nodes)))
        return {
            node: MeasuredNode(node, NodeFigures(memory_bytes_per_second=speeds[node].pop(0)))
            for node in nodes
        }

    monkeypatch.setattr(check, "_measure", measure)
    monkeypatch.setattr(check, "_wait_until_ready", lambda nodes: True)
    monkeypatch.setattr(check, "_clocks", lambda nodes: {})
    report = check.check({name: NodeProcesses(name, ()) for name in speeds}, {})
    assert levels == [("quick", ["a", "b", "c", "d"]), ("quick", ["b", "c"]), ("quick", ["c"])]
    assert [verdict.node for verdict in report.verdicts] == ["c"]
    assert report.nodes["c"].figures.memory_bytes_per_second == 11


def scripted_check(monkeypatch, script, level="quick"):
    """A check whose nodes give the figures of a script, in order, or a failure."""
    monkeypatch.setattr(checks, "suspects", verdicts.suspects)
    check = NodeChecks(level, "cpu", 1, READY_SECONDS)

    def measure(nodes, folders, level):
        answers = {node: script[node].pop(0) for node in nodes}
        return {
            node: MeasuredNode(node, failure=answer)
            if isinstance(answer, str)
            else MeasuredNode(node, NodeFigures(memory_bytes_per_second=answer))
            for node, answer in answers.items()
        }

    monkeypatch.setattr(check, "_measure", measure)
    monkeypatch.setattr(check, "_wait_until_ready", lambda nodes: True)
    monkeypatch.setattr(check, "_clocks", lambda nodes: {})
    return check, {name: NodeProcesses(name, (FakeActor(),)) for name in script}


class FakeActor:
    """An actor whose network has the bandwidths of a script; calls return their results."""

    def __init__(self, *bytes_per_second):
        self.bandwidths = list(bytes_per_second)
        self.tcp_rendezvous = SimpleNamespace(remote=lambda: "tcp://localhost:1")
        self.check_network = SimpleNamespace(remote=self._network)

    def _network(self, placement):
        links = {(placement.rank + 1) % 2: self.bandwidths.pop(0)}
        return NetworkFigures(all_reduce_bytes_per_second=7.0, links=links)


@pytest.fixture
def no_ray(monkeypatch):
    """Results of fake actors are there at once."""
    fake = SimpleNamespace(get=lambda value, timeout: value, wait=lambda values, **_: (values, []))
    monkeypatch.setattr(checks, "ray", fake)


def test_a_node_that_fails_in_its_second_measurement_fails(monkeypatch):
    silence = "no answer within 30 s"
    check, nodes = scripted_check(
        monkeypatch, {"a": [100], "b": [10, silence, silence], "c": [101]}
    )
    report = check.check(nodes, {})
    silent = [verdict for verdict in report.verdicts if silence in verdict.text]
    assert [(verdict.node, verdict.fails) for verdict in silent] == [("b", True)]


@pytest.mark.parametrize("speeds", [(100.0, 40.0), (40.0, 100.0)])
def test_the_better_of_two_measurements_of_a_link_stays(monkeypatch, no_ray, speeds):
    check, _ = scripted_check(monkeypatch, {"a": [100], "b": [100]}, "full")
    nodes = {name: NodeProcesses(name, (FakeActor(*speeds),)) for name in "ab"}
    check._nodes = {name: MeasuredNode(name) for name in nodes}
    for _ in speeds:
        assert check._measure_network(nodes, []) == 7.0
    assert [check._nodes[name].link_bytes_per_second for name in "ab"] == [100.0, 100.0]


def test_a_repeated_measurement_keeps_better_figures_and_the_clock(monkeypatch):
    check, nodes = scripted_check(monkeypatch, {"a": [100], "b": [10, 5, 7], "c": [101]})
    clock = ClockOffset(0.25, 0.01)
    monkeypatch.setattr(check, "_clocks", lambda nodes: dict.fromkeys(nodes, clock))
    report = check.check(nodes, {})
    assert report.nodes["b"].figures.memory_bytes_per_second == 10
    assert {node.clock for node in report.nodes.values()} == {clock}
