"""Nodes that get ranks, and the processes of a group after its end."""

import gc
import time
import weakref
from dataclasses import replace
from math import inf
from types import SimpleNamespace

import pytest
from support.cluster.scripted_cluster import HandClock
from support.cluster.scripted_ray import DEAD, Answer, ScriptedActor, ScriptedRay, pending

from cluster.config import ClusterConfig
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.health.unfit_nodes import UnfitNodes
from cluster.ranks import agent_client, rank_pool
from cluster.ranks.node_processes import ProcessName
from cluster.ranks.rank_pool import RankPool
from cluster.ray.cluster_view import Node
from cluster.ray.reservation import RankBundle


def test_an_unfit_node_gets_no_ranks():
    nodes = {name: Node(name, name, {"CPU": 1.0}, {"CPU": 4.0}, None) for name in "ab"}
    unfit = UnfitNodes()
    supply = RankPool(ClusterConfig(ranks={"min": 1, "max": 2}), SuspendAwareClock(), {}, unfit)
    assert supply.offer(nodes) == ["a", "b"]
    unfit.add("b", "Node b computes wrong products")
    assert supply.offer(nodes) == ["a"]


def new_agent(node):
    return ScriptedActor(
        kill=lambda processes: None,
        await_deaths=lambda processes: None,
        stacks=lambda processes: [f"stacks of process {process.id}" for process in processes],
    )


def killed_by(agents):
    return [names for agent in agents.by_node.values() for (names,) in agent.calls["kill"]]


class Seats:
    """Reservation that gets all requested bundles if `places` is true."""

    def __init__(self):
        self.taken, self.given_back, self.places = [], 0, True

    def take(self, nodes):
        self.taken = [RankBundle(node) for node in sorted(nodes)]
        return self.places

    def release(self):
        self.given_back += 1


class Process(SimpleNamespace):
    """Process of a rank or spare, which was never polled."""

    polled_at = -inf
    __hash__ = object.__hash__


class NewSpares:
    def __init__(self):
        self.waiting, self.refills = [], []

    def take(self, rank_bundles):
        return [
            Process(
                rank_bundle=rank_bundle,
                name=ProcessName(rank_bundle.node, n, 1),
                actor=ScriptedActor(),
                name_answer=None,
            )
            for n, rank_bundle in enumerate(rank_bundles)
        ]

    def refill(self, rank_bundles, rank):
        self.refills.append((list(rank_bundles), rank))


@pytest.fixture
def supply(monkeypatch):
    """Return a function that makes a pool with scripted agents, bundles and spares."""

    def make(**config):
        scripted = ScriptedRay()
        for module in (rank_pool, agent_client):
            monkeypatch.setattr(module, "ray", scripted)
        monkeypatch.setattr(rank_pool, "start_agent", new_agent)
        supply = RankPool(ClusterConfig(**config), HandClock(), {}, UnfitNodes())
        supply._reservation = Seats()
        supply._spares = NewSpares()
        return supply, scripted

    return make


NAMES = {"a": "node a", "b": "node b", "c": "node c"}


def test_a_group_has_a_rank_per_bundle_and_an_agent_per_node(supply):
    ranks, _ = supply(ranks=3)
    group = ranks.start_group(["b", "a", "b"], NAMES)
    assert group.nodes == ["a", "b", "b"]
    assert group._names == [
        "Rank 0 on node node a",
        "Rank 1 on node node b",
        "Rank 2 on node node b",
    ]
    assert ranks._agents.by_node.keys() == {"a", "b"}
    assert ranks._agents.names == {"a": "node a", "b": "node b"}


def test_no_group_starts_without_bundles(supply):
    ranks, _ = supply()
    ranks._reservation.places = False
    assert ranks.start_group(["a"], NAMES) is None
    assert ranks._agents.by_node == {}
    assert ranks.stacks() == {}
    ranks.refill_spares()
    ranks.ask_usage()
    assert ranks._spares.refills == []


def test_the_end_of_a_group_kills_its_processes_once(supply):
    ranks, scripted = supply(ranks=2)
    group = ranks.start_group(["a", "b"], NAMES)
    group.processes[1].name = None  # this process has not started
    ranks.end_group()
    ranks.end_group()
    assert killed_by(ranks._agents) == [[ProcessName("a", 0, 1)]]
    assert scripted.killed == group.actors
    assert ranks._reservation.given_back == 0  # the bundles are kept for the next group


def test_the_end_of_a_group_drops_its_pending_requests(supply):
    ranks, _ = supply(ranks=2)
    group = ranks.start_group(["a", "b"], NAMES)
    group._results = [pending(), pending()]
    group._take_reports(0.0)
    references = [weakref.ref(one) for one in (*group._results, *group._polls.values())]
    assert len(references) == 4
    del group
    ranks.end_group()
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


def test_leaving_the_pool_kills_ranks_and_spares(supply):
    ranks, scripted = supply()
    with ranks:
        group = ranks.start_group(["a"], NAMES)
        spare = Process(
            name=ProcessName("a", 7, 1), actor=ScriptedActor(), rank_bundle=RankBundle("a")
        )
        ranks._spares.waiting.append(spare)
    assert killed_by(ranks._agents) == [[ProcessName("a", 0, 1)], [spare.name]]
    assert scripted.killed == [*group.actors, spare.actor]


def test_agents_spares_and_ranks_get_heartbeats(supply):
    ranks, _ = supply()
    assert list(ranks._actors()) == []
    group = ranks.start_group(["a"], NAMES)
    spare = Process(actor=ScriptedActor(), rank_bundle=RankBundle("a"))
    ranks._spares.waiting.append(spare)
    assert list(ranks._actors()) == [ranks._agents.by_node["a"], spare.actor, *group.actors]


def test_a_rank_that_is_polled_gets_no_other_heartbeats(supply, monkeypatch):
    """A busy driver polls no rank, so its thread sends heartbeats to ranks not polled recently."""
    ranks, _ = supply(ranks=2)
    group = ranks.start_group(["a", "a"], NAMES)
    agent, (polled, other) = ranks._agents.by_node["a"], group.processes
    polled.polled_at = time.monotonic()
    assert list(ranks._actors()) == [agent, other.actor]
    polled.polled_at -= rank_pool.POLLED_SECONDS
    assert list(ranks._actors()) == [agent, polled.actor, other.actor]


@pytest.mark.parametrize("warm", [True, False])
def test_spares_are_started_for_bundles_only_with_warm_spares(supply, warm):
    ranks, _ = supply(ranks=2, warm_spares=warm)
    group = ranks.start_group(["a", "b"], NAMES)
    ranks.refill_spares()
    assert ranks._spares.refills == (
        [([RankBundle("a"), RankBundle("b")], group.actors[0])] if warm else []
    )


def test_stacks_are_returned_for_each_rank_or_the_reason_why_not(supply, monkeypatch):
    monkeypatch.setattr("cluster.ranks.node_processes.COLLECT_SECONDS", 0.0)
    ranks, _ = supply(ranks=3)
    group = ranks.start_group(["a", "b", "c"], NAMES)
    group.processes[0].name = None
    ranks._agents.by_node["b"].answers["stacks"] = []  # this agent does not answer
    stacks = ranks.stacks()
    assert list(stacks) == [0, 1, 2]
    assert stacks[2] == "stacks of process 2"
    assert (
        stacks[0]
        == stacks[1]
        == "No stacks: the process does not exist, or its node did not answer.\n"
    )


def test_records_of_collectives_are_collected_from_ranks_that_answer(supply):
    ranks, scripted = supply(ranks=3)
    assert ranks.collectives() == {}
    group = ranks.start_group(["a", "a", "b"], NAMES)
    group.processes[0].actor = ScriptedActor(collectives=[Answer(b"{}")])
    group.processes[1].actor = ScriptedActor(collectives=[Answer(DEAD)])
    assert ranks.collectives() == {0: b"{}"}
    assert scripted.waits == [rank_pool.RECORD_SECONDS]


def test_usage_is_requested_from_the_nodes_of_the_group(supply):
    ranks, _ = supply(ranks=2)
    ranks.start_group(["a", "b"], NAMES)
    ranks.ask_usage()
    assert [agent.calls["usage"] for agent in ranks._agents.by_node.values()] == [[()], [()]]


def test_nodes_that_drain_or_are_silent_get_no_ranks(monkeypatch):
    nodes = {name: Node(name, name, {"CPU": 2.0}, {"CPU": 4.0}) for name in "abc"}
    nodes["c"] = replace(nodes["c"], leaves_at=2e9)
    supply = RankPool(ClusterConfig(ranks=3), SuspendAwareClock(), {}, UnfitNodes())
    assert sorted(supply.offer(nodes)) == ["a", "a", "b"]
    monkeypatch.setattr(agent_client, "ray", ScriptedRay())
    supply._agents.silent["a"] = pending()
    assert supply.offer(nodes) == ["b", "b"]


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda")])
def test_spares_use_the_device_of_the_recipe_and_agents_kill_them(gpus, device, monkeypatch):
    environment = {"A": "1"}
    config = ClusterConfig(gpus_per_rank=gpus)
    supply = RankPool(config, SuspendAwareClock(), environment, UnfitNodes())
    spares = supply._spares
    assert (spares._device, spares._environment) == (device, environment)
    for module in (rank_pool, agent_client):
        monkeypatch.setattr(module, "ray", ScriptedRay())
    supply._agents.start({"a": "node a"}, new_agent)
    spare = SimpleNamespace(name=ProcessName("a", 7, 1), actor=ScriptedActor())
    spares._kill([spare])
    assert killed_by(supply._agents) == [[spare.name]]
