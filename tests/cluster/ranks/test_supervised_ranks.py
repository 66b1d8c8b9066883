"""A group of real Ray actors that report without training, and the agent of their node."""

import os
import signal
import time
from functools import partial
from types import SimpleNamespace

import pytest
import ray
from support.cluster.processes import is_alive, wait_until

from cluster.config import ClusterConfig, DeadlinesConfig
from cluster.health import watchdog
from cluster.health.failures import RankDiedError
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import HeartbeatSender, Watchdog
from cluster.ranks import rank_pool
from cluster.ranks.agent_client import NodeAgents
from cluster.ranks.death_watch import DeathWatch
from cluster.ranks.group import RankGroup
from cluster.ranks.node_agent import start_agent
from cluster.ranks.node_processes import ProcessName
from cluster.ranks.process import RankProcess
from cluster.ranks.rank_pool import RankPool
from cluster.ranks.reporting import ReportingMethods
from cluster.ranks.reports import Mailbox, ReportBatch
from cluster.ray.reservation import RankBundle
from cluster.ray.session import ray_session


class Process(RankProcess):
    """Process of a given actor."""

    def __init__(self, actor, node):
        self.actor, self._name, self.name_answer = actor, None, actor.process.remote()
        self.rank_bundle = RankBundle(node)


def new_rank(timeout_seconds=600.0):
    """Return an actor that reports a number every 50 ms, and ends if it gets no heartbeats."""

    @ray.remote(num_cpus=0, concurrency_groups={"control": 1, "reports": 1})
    class Rank(ReportingMethods):  # defined here: Ray's processes cannot import tests
        def __init__(self):
            super().__init__(Watchdog(timeout_seconds).heartbeat)

        def train(self):
            for number in range(10**6):
                self._mailbox.notice(str(number))
                time.sleep(0.05)

    return Rank.remote()


class Running:
    """Group of real ranks, with or without the agent of this node."""

    def __init__(self, ranks, node_agent=True, **deadlines):
        node = ray.get_runtime_context().get_node_id()
        self.agents = NodeAgents(UnfitNodes())
        if node_agent:
            self.agents.start({node: "here"}, start_agent)
            ray.get(
                [agent.dead_processes.remote([], 0.0) for agent in self.agents.by_node.values()]
            )
        self.processes = [Process(rank, node) for rank in ranks]
        config = ClusterConfig(deadlines=DeadlinesConfig(**deadlines))
        names = [f"Rank {rank}" for rank in range(len(ranks))]
        self.group = RankGroup(config, self.processes, names, SuspendAwareClock())
        self.group._results = [rank.train.remote() for rank in ranks]
        ray.get([process.name_answer for process in self.processes])
        watched = [process.name for process in self.processes]
        self.group._death_watch = DeathWatch(self.agents.by_node, watched)
        self.numbers = [[] for _ in ranks]
        self.failure = None

    def poll(self):
        self.group.wait(0.1)
        poll = self.group.poll()
        for rank, report in poll.reports:
            self.numbers[rank].append(int(report.text))
        self.failure = poll.failure
        return poll

    def poll_until(self, is_enough):
        wait_until(lambda: self.poll() and is_enough())

    def poll_further(self, count):
        """Poll until each rank has sent this number of further reports."""
        reached = [len(numbers) + count for numbers in self.numbers]
        self.poll_until(
            lambda: all(len(n) >= r for n, r in zip(self.numbers, reached, strict=True))
        )

    def check_that_nothing_is_lost(self):
        for numbers in self.numbers:
            assert numbers == list(range(len(numbers)))


@pytest.fixture
def running(ray_head):
    with ray_session(ray_head.address):
        made = []

        def make(*ranks, **options):
            made.append(Running(ranks, **options))
            return made[-1]

        with HeartbeatSender(lambda: [a for one in made for a in one.agents.by_node.values()]):
            yield make
            for one in made:
                for actor in (*one.agents.by_node.values(), *one.group.actors):
                    ray.kill(actor)


def keep_news_of_ray_away(group, other):
    """Replace the calls of `train` by those of another actor, so that Ray reports no death."""
    group.group._results = [other.train.remote() for _ in group.processes]


def test_a_death_is_detected_through_the_agent(running):
    other, ranks = new_rank(), [new_rank(), new_rank()]
    group = running(*ranks)
    keep_news_of_ray_away(group, other)
    group.poll_further(5)
    ray.kill(ranks[1])
    group.poll_until(lambda: group.failure)
    ray.kill(other)
    assert isinstance(group.failure, RankDiedError)
    assert str(group.failure) == "Rank 1 has died in phase start: its process has ended"
    group.check_that_nothing_is_lost()


def test_without_an_agent_a_death_is_detected_through_ray(running):
    ranks = [new_rank(), new_rank()]
    group = running(*ranks, node_agent=False)
    group.poll_further(5)
    ray.kill(ranks[1])
    group.poll_until(lambda: group.failure)
    assert str(group.failure).startswith("Rank 1 has died in phase start: ")
    group.check_that_nothing_is_lost()


def test_a_killed_agent_loses_no_report_and_its_successor_detects_deaths(running, ray_head):
    other, ranks = new_rank(), [new_rank(), new_rank()]
    before = {process.pid for process in ray_head.actors("NodeAgent")}
    group = running(*ranks)
    keep_news_of_ray_away(group, other)
    group.poll_further(5)
    (agent,) = (p for p in ray_head.actors("NodeAgent") if p.pid not in before)
    agent.kill()
    group.poll_further(40)
    assert group.failure is None
    ray.kill(ranks[1])
    group.poll_until(lambda: group.failure)
    ray.kill(other)
    assert str(group.failure) == "Rank 1 has died in phase start: its process has ended"
    group.check_that_nothing_is_lost()


def test_a_suspended_agent_loses_no_report(running, ray_head):
    before = {process.pid for process in ray_head.actors("NodeAgent")}
    group = running(new_rank(), new_rank())
    group.poll_further(5)
    (agent,) = (p for p in ray_head.actors("NodeAgent") if p.pid not in before)
    agent.suspend()
    group.poll_further(40)
    agent.resume()
    group.poll_further(5)
    assert group.failure is None
    group.check_that_nothing_is_lost()


def test_reports_of_a_rank_that_was_suspended_are_received_once(running):
    group = running(new_rank(), new_rank())
    group.poll_further(5)
    stopped, reached = group.processes[1].name.id, len(group.numbers[0])
    os.kill(stopped, signal.SIGSTOP)
    group.poll_until(lambda: len(group.numbers[0]) > reached + 20)
    os.kill(stopped, signal.SIGCONT)
    group.poll_further(20)
    assert group.failure is None
    group.check_that_nothing_is_lost()


@pytest.mark.long
def test_a_busy_driver_loses_no_rank(running, monkeypatch):
    """The driver polls no rank for much longer than a rank lives without heartbeats."""
    monkeypatch.setattr(watchdog, "HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr(rank_pool, "POLLED_SECONDS", 1.0)
    group = running(new_rank(timeout_seconds=6.0), new_rank(timeout_seconds=6.0))
    pool = RankPool(ClusterConfig(), SuspendAwareClock(), {}, UnfitNodes())
    pool._group = group.group
    with HeartbeatSender(pool._actors):
        group.poll_further(5)
        until = time.monotonic() + 12.0
        while time.monotonic() < until:
            sum(range(1000))
        group.poll_further(20)
        assert group.failure is None
        group.check_that_nothing_is_lost()
    ids = [process.name.id for process in group.processes]
    assert all(map(is_alive, ids))
    wait_until(lambda: not any(map(is_alive, ids)))  # the ranks end without polls and heartbeats


RANKS_PER_HOST = 16


def new_host():
    """Return an actor whose threads act as ranks that report steps."""
    threads = {"control": 1, "train": RANKS_PER_HOST, "reports": RANKS_PER_HOST}

    @ray.remote(num_cpus=0, concurrency_groups=threads)
    class Host:  # defined here: Ray's processes cannot import tests
        def __init__(self):
            self._mailboxes = [Mailbox() for _ in range(RANKS_PER_HOST)]

        @ray.method(concurrency_group="control")
        def process(self) -> ProcessName:
            return ProcessName.of_this_process()

        @ray.method(concurrency_group="train")
        def train(self, rank):
            for step in range(10**6):
                self._mailboxes[rank].progress("step", step)
                time.sleep(0.5)

        @ray.method(concurrency_group="reports")
        def poll(self, rank, received, seconds) -> ReportBatch:
            self._mailboxes[rank].acknowledge(received)
            return self._mailboxes[rank].reports_since(received, seconds)

    return Host.remote()


def rank_of(host, rank):
    return SimpleNamespace(
        process=host.process,
        poll=SimpleNamespace(remote=partial(host.poll.remote, rank)),
        train=SimpleNamespace(remote=partial(host.train.remote, rank)),
    )


@pytest.mark.long
def test_none_of_64_ranks_counts_as_hung_with_a_short_deadline_for_answers(ray_head):
    with ray_session(ray_head.address):
        hosts = [new_host() for _ in range(4)]
        ranks = [rank_of(host, rank) for host in hosts for rank in range(RANKS_PER_HOST)]
        group = Running(ranks, node_agent=False, answer_seconds=3.0).group
        until = time.monotonic() + 10.0
        while time.monotonic() < until:
            group.wait(0.1)
            assert group.poll().failure is None
        time.sleep(5.0)  # as if the driver were busy
        for _ in range(20):
            group.wait(0.1)
            assert group.poll().failure is None
        assert all(position.step > 5 for position, _ in group.heartbeats())
        for host in hosts:
            ray.kill(host)
