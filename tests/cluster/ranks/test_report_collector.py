"""Reports of ranks from the agents of their nodes: by a script, and with real actors of Ray."""

import time

import pytest
import ray
from support.cluster.processes import wait_until
from support.cluster.scripted_cluster import HandClock
from support.cluster.scripted_ray import DEAD, ScriptedActor, ScriptedRay

from cluster.config import ClusterConfig
from cluster.health.failures import RankDiedError
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import HeartbeatSender
from cluster.ranks import agent_client
from cluster.ranks.agent_client import NodeAgents
from cluster.ranks.agent_link import AgentAddress
from cluster.ranks.group import RankGroup
from cluster.ranks.linked_ranks import NodeReports
from cluster.ranks.node_agent import start_agent
from cluster.ranks.node_processes import ProcessName
from cluster.ranks.process import RankProcess
from cluster.ranks.report_collector import RETRY_SECONDS, SILENT_SECONDS, ReportCollector
from cluster.ranks.reporting import ReportingMethods
from cluster.ray.reservation import RankBundle
from cluster.ray.session import ray_session

ADDRESS = AgentAddress("/tmp/transloom-agent-1/s", 70)
AGAIN = AgentAddress("/tmp/transloom-agent-2/s", 71)


class Process(RankProcess):
    """A process whose actor is given."""

    def __init__(self, actor, node, name=None, name_answer=None):
        self.actor, self._name, self.name_answer = actor, name, name_answer
        self.rank_bundle = RankBundle(node)


class Story:
    """A collector for two ranks on node a and one on node b, whose agents answer by a script."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(agent_client, "ray", ScriptedRay())
        self.clock = HandClock()
        self.agents = NodeAgents(UnfitNodes())
        self.agents.by_node = {node: ScriptedActor() for node in "ab"}
        self.processes = [
            Process(ScriptedActor(), node, ProcessName(node, number, 1))
            for node, number in (("a", 1), ("a", 2), ("b", 1))
        ]
        self.collector = ReportCollector(
            self.agents, lambda: self.processes, lambda: self.clock.now
        )
        self.collector.collect()

    def answer(self, node, address=ADDRESS, silent=(), dead=()):
        """Let an agent answer, and let the collector take the answer."""
        answer = NodeReports(address, 100.0, dict(silent), {}, list(dead))
        self.collector._nodes[node].pending.come(answer)
        return self.collector.collect()

    def calls(self, node):
        return self.agents.by_node[node].calls["listen"]


@pytest.fixture
def story(monkeypatch):
    return Story(monkeypatch)


def test_each_agent_has_one_request_for_all_ranks_of_its_node(story):
    story.collector.collect()
    assert story.calls("a") == [({1: 0, 2: 0},)]
    assert story.calls("b") == [({1: 0},)]
    assert not story.answer("a", silent={1: 0.5})
    assert len(story.calls("a")) == 2
    assert story.collector.linked == {story.processes[0]}
    assert [news.silent_seconds for news in story.collector.take()] == [0.5, SILENT_SECONDS]
    assert story.collector.take() == []


def test_processes_are_told_each_address_once(story):
    for address in (ADDRESS, ADDRESS, AGAIN):
        story.answer("a", address)
        story.clock.now += 10
        story.collector.collect()
    first, second, other = (process.actor.calls["link"] for process in story.processes)
    assert first == second == [(ADDRESS,), (AGAIN,)]
    assert other == []


def test_an_agent_that_fails_is_asked_again_and_its_ranks_are_called_directly(story):
    story.answer("a", silent={1: 0.5, 2: 0.5})
    story.answer("b", silent={1: 0.5})
    story.collector._nodes["a"].pending.come(DEAD)
    story.collector.collect()
    assert story.collector.linked == {story.processes[2]}
    assert len(story.calls("a")) == 2
    story.clock.now += RETRY_SECONDS
    story.collector.collect()
    assert len(story.calls("a")) == 3


def test_silence_of_an_agent_or_of_a_rank_ends_a_link(story):
    story.answer("a", silent={1: 0.5, 2: SILENT_SECONDS})
    first, second, _ = story.processes
    assert story.collector.linked == {first}
    assert story.collector.relays_heartbeats(first)
    assert not story.collector.relays_heartbeats(second)
    story.clock.now += SILENT_SECONDS + 0.1
    assert not story.collector.relays_heartbeats(first)  # also if nothing is collected
    story.collector.collect()
    assert story.collector.linked == set()


def test_a_death_is_reported_once_and_not_asked_for_again(story):
    assert story.answer("a", silent={1: 0.5}, dead=[2, 99])
    assert story.collector.dead == {story.processes[1]}
    assert story.calls("a")[-1] == ({1: 0},)
    assert not story.collector.collect()
    del story.processes[1]
    story.clock.now += 10
    story.collector.collect()
    assert story.collector.dead == set()


def new_rank(reaches_socket=True):
    """An actor that reports a number twenty times a second."""

    @ray.remote(num_cpus=0, concurrency_groups={"control": 1})
    class Rank(ReportingMethods):  # here, so that Ray sends it: its processes know no tests
        def __init__(self):
            super().__init__(self.count)
            self._heartbeats = 0

        @ray.method(concurrency_group="control")
        def link(self, address):
            if not reaches_socket:
                address = address._replace(socket=address.socket.with_name("none"))
            return self._link.connect(address)

        def count(self):
            self._heartbeats += 1

        @ray.method(concurrency_group="control")
        def heartbeats(self):
            return self._heartbeats

        def train(self):
            for number in range(10**6):
                self._mailbox.notice(str(number))
                time.sleep(0.05)

    return Rank.remote()


class Running:
    """A group of real ranks, and the agent of this node."""

    def __init__(self, ranks):
        node = ray.get_runtime_context().get_node_id()
        self.agents = NodeAgents(UnfitNodes())
        self.agents.start({node: "here"}, start_agent)
        self.processes = [Process(rank, node, name_answer=rank.process.remote()) for rank in ranks]
        self.collector = ReportCollector(self.agents, lambda: self.processes)
        names = [f"Rank {rank}" for rank in range(len(ranks))]
        clock = SuspendAwareClock()
        self.group = RankGroup(ClusterConfig(), self.processes, names, clock, (), self.collector)
        self.group._results = [rank.train.remote() for rank in ranks]
        self.numbers = [[] for _ in ranks]
        self.failure = None

    @property
    def agent(self):
        (agent,) = self.agents.by_node.values()
        return agent

    def poll(self):
        self.group.wait(0.1)
        poll = self.group.poll()
        for rank, report in poll.reports:
            self.numbers[rank].append(int(report.text))
        self.failure = poll.failure
        return poll

    def poll_until(self, is_enough):
        wait_until(lambda: self.poll() and is_enough())

    def check_that_nothing_is_lost(self):
        for numbers in self.numbers:
            assert numbers == list(range(len(numbers)))


@pytest.fixture
def running(ray_head):
    with ray_session(ray_head.address):
        made = []

        def make(*ranks):
            made.append(Running(ranks))
            return made[-1]

        with HeartbeatSender(lambda: [one.agent for one in made]):
            yield make
            for one in made:
                one.agents.close_links()
                for actor in (one.agent, *one.group.actors):
                    ray.kill(actor)


def test_a_death_is_noticed_through_the_agent(running):
    """Ray's own news are kept away: the calls of `train` are those of another actor."""
    other, ranks = new_rank(), [new_rank(), new_rank()]
    group = running(*ranks)
    group.group._results = [other.train.remote() for _ in ranks]
    ranks[1].train.remote()
    group.poll_until(lambda: len(group.collector.linked) == 2 and group.numbers[1])
    ray.kill(ranks[1])
    group.poll_until(lambda: group.failure)
    ray.kill(other)
    assert isinstance(group.failure, RankDiedError)
    assert str(group.failure) == "Rank 1 has died in phase start: its process has ended"
    group.check_that_nothing_is_lost()


def test_a_killed_agent_loses_no_report_and_no_rank(running, ray_head):
    group = running(new_rank(), new_rank())
    group.poll_until(lambda: len(group.collector.linked) == 2)
    process_id = ray.get(group.agent.listen.remote({})).address.process_id
    reached = [len(numbers) + 40 for numbers in group.numbers]
    (agent,) = (p for p in ray_head.actors("NodeAgent") if p.pid == process_id)
    agent.kill()
    group.poll_until(lambda: len(group.collector.linked) == 0)
    group.poll_until(lambda: len(group.collector.linked) == 2)  # Ray has started another agent
    group.poll_until(lambda: all(len(n) > m for n, m in zip(group.numbers, reached, strict=True)))
    assert group.failure is None
    group.check_that_nothing_is_lost()


def test_a_rank_that_cannot_reach_the_socket_is_called_directly(running):
    group = running(new_rank(), new_rank(reaches_socket=False))
    group.poll_until(lambda: all(len(numbers) > 40 for numbers in group.numbers))
    # A busy machine may interrupt the link of the other rank for a moment.
    group.poll_until(lambda: group.collector.linked == {group.processes[0]})
    assert group.failure is None
    group.check_that_nothing_is_lost()


def test_heartbeats_reach_ranks_through_the_agent(running):
    rank = new_rank()
    group = running(rank)
    group.poll_until(lambda: ray.get(rank.heartbeats.remote()) > 1)
    group.poll_until(lambda: group.collector.relays_heartbeats(group.processes[0]))
