"""Measure how the CPU time of supervision grows with the ranks, and how soon a death is noticed.

Ranks are actors that do not import torch. They report as a training rank does: two positions in
each step, and rank 0 a line. Each size is measured twice in one run: with direct calls to all ranks
and with one request to the agent of the node. The driver runs its loop and sends heartbeats.

Then 128 simulated agents, each with 8 ranks, answer one driver. They are threads of a few actors,
so only the driver's time is measured. Figures of 1,024 ranks are extrapolated.

    .venv/bin/python benchmarks/supervision_scale.py [--ranks 4,16,64] [--seconds N] [--deaths N]
"""

import argparse
import os
import pickle
import signal
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import ray

from benchmarks.support.command_line import parse_arguments
from benchmarks.support.cpu import cpu_seconds
from cluster.config import ClusterConfig
from cluster.health.hang_detector import Position
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import HeartbeatSender, Watchdog
from cluster.ranks.agent_client import NodeAgents, wait
from cluster.ranks.agent_link import AgentAddress
from cluster.ranks.group import RankGroup
from cluster.ranks.linked_ranks import LISTEN_SECONDS, NodeReports, ReportFrame
from cluster.ranks.node_agent import start_agent
from cluster.ranks.node_processes import ProcessName, kill_processes
from cluster.ranks.process import RankProcess
from cluster.ranks.report_collector import ReportCollector
from cluster.ranks.reporting import ReportingMethods
from cluster.ranks.reports import Notice, ReceivedReports, ReportBatch
from cluster.ray.embedded import EmbeddedRay
from cluster.ray.reservation import RankBundle
from cluster.ray.session import ray_session
from cluster.supervision.attempt import POLL_SECONDS

STEP_SECONDS = 0.5
RANKS_PER_AGENT = 8
HOSTS = 4  # actors that simulate agents
START_SECONDS = 300.0
SETTLE_SECONDS = 1.0
MANY = 1024  # ranks, for which figures are extrapolated
DIRECT, BY_NODE = "direct calls", "one request per node"


class Rank(ReportingMethods):
    """A rank that reports steps without training."""

    def __init__(self) -> None:
        # Not all ranks are supervised at once.
        super().__init__(Watchdog(timeout_seconds=600.0).heartbeat)

    def train(self, *, is_first: bool) -> str:
        for step in range(1, 10**9):
            self._mailbox.progress("data", step)
            self._mailbox.progress("step", step, "epoch 0, window 3, micro-batch 17")
            time.sleep(STEP_SECONDS)
            if is_first:
                self._mailbox.notice(f"step {step}")
        return "finished"


class SimulatedAgents:
    """Many agents in one process, whose ranks report steps."""

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}

    def listen(self, node: int, received: Mapping[int, int]) -> NodeReports:
        seconds = STEP_SECONDS if node == 0 else LISTEN_SECONDS
        time.sleep(seconds)
        steps = self._sent.get(node, 0)
        self._sent[node] = steps + max(1, round(seconds / STEP_SECONDS))
        now = time.monotonic()
        frames = {}
        for rank in range(1, RANKS_PER_AGENT + 1):
            reports: list[Any] = []
            for step in range(steps + 1, self._sent[node] + 1):
                reports += [(now, Position("data", step)), (now, Position("step", step, "window"))]
            if node == 0 and rank == 1:
                reports.append((now, Notice(f"step {self._sent[node]}")))
            first = received.get(rank, 0)
            frames[rank] = [ReportFrame(first, first + len(reports), False, pickle.dumps(reports))]
        silent = dict.fromkeys(range(1, RANKS_PER_AGENT + 1), 0.5)
        return NodeReports(AgentAddress(__file__, 1), now, silent, frames, [])  # type: ignore[arg-type]

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> None: ...

    @ray.method(concurrency_group="control")
    def link(self, address: AgentAddress) -> bool:
        return True

    @ray.method(concurrency_group="control")
    def poll(self, received: int) -> ReportBatch:
        return ReportBatch(received, [], 0.0)


class Sleeper:
    """An actor whose calls stand for those of `train`, which do not return."""

    def sleep(self) -> None:
        time.sleep(1e6)


class BenchmarkProcess(RankProcess):
    """A process of the pool, with another actor."""

    def __init__(self, actor: Any, node: str, name: ProcessName | None = None) -> None:
        self.actor = actor
        self.rank_bundle = RankBundle(node)
        self.name_answer = actor.process.remote() if name is None else None
        self._name = name
        self.result: Any = None  # of its call of `train`
        self.reports = ReceivedReports()  # by all groups of the benchmark


@contextmanager
def supervised(
    agents: NodeAgents, processes: list[BenchmarkProcess], mode: str
) -> Iterator[RankGroup]:
    """Train a group of ranks that have started, with heartbeats to all processes."""
    collector = ReportCollector(agents, lambda: processes) if mode == BY_NODE else None
    names = [f"Rank {rank}" for rank in range(len(processes))]
    group = RankGroup(ClusterConfig(), [*processes], names, SuspendAwareClock(), (), collector)
    group._results = [process.result for process in processes]
    group._received = [process.reports for process in processes]

    def actors() -> Iterator[Any]:
        yield from agents.by_node.values()
        for process in processes:
            if not (collector and collector.relays_heartbeats(process)):
                yield process.actor

    with HeartbeatSender(actors):
        yield group


def supervise(group: RankGroup, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        group.wait(POLL_SECONDS)
        if failure := group.poll().failure:
            raise failure


def settle(group: RankGroup) -> None:
    until = time.monotonic() + START_SECONDS
    while (collector := group._collector) and len(collector.linked) < len(group.processes):
        supervise(group, POLL_SECONDS)
        assert time.monotonic() < until, "not all ranks are linked"
    supervise(group, SETTLE_SECONDS)


def measure(group: RankGroup, agent: int | None, seconds: float) -> tuple[float, float]:
    """Return the share of a core that the driver and an agent use, once all ranks are linked."""
    settle(group)
    before, driver, started = agent and cpu_seconds(agent), time.process_time(), time.monotonic()
    supervise(group, seconds)
    passed = time.monotonic() - started
    used = cpu_seconds(agent) - before if agent and before is not None else 0.0
    return (time.process_time() - driver) / passed, used / passed


def death_seconds(group: RankGroup, victim: ProcessName) -> float:
    """Kill a rank; return the time until the group reports it."""
    settle(group)
    started = time.monotonic()
    os.kill(victim.id, signal.SIGKILL)
    while True:
        group.wait(POLL_SECONDS)
        if group.poll().failure:
            return time.monotonic() - started


def slope(shares: Mapping[int, float]) -> float:
    """Return the share of a core per rank, by least squares."""
    if len(shares) < 2:
        return 0.0
    return statistics.linear_regression(list(shares), list(shares.values())).slope


def measure_ranks(sizes: list[int], seconds: float, deaths: int) -> float:
    """Print the figures of real ranks on one node; return the driver's share for direct calls."""
    node: str = ray.get_runtime_context().get_node_id()
    agents = NodeAgents(UnfitNodes())
    agents.start({node: "here"}, start_agent)
    actor_class: Any = ray.remote(num_cpus=0, concurrency_groups={"control": 1, "train": 1})(Rank)
    everyone = [BenchmarkProcess(actor_class.remote(), node) for _ in range(max(sizes))]
    wait([process.name_answer for process in everyone], START_SECONDS)
    for number, process in enumerate(everyone):
        process.result = process.actor.train.remote(is_first=number == 0)
    agent = ray.get(agents.by_node[node].listen.remote({})).address.process_id
    shares: dict[str, dict[int, float]] = {DIRECT: {}, BY_NODE: {}}
    print("ranks  calls                  driver   agent   (% of a core)")
    for size in sizes:
        for mode, found in shares.items():
            with supervised(agents, everyone[:size], mode) as group:
                found[size], of_agent = measure(group, agent, seconds)
            print(f"{size:5}  {mode:20} {found[size]:8.2%} {of_agent:7.2%}", flush=True)
    slopes = {mode: slope(found) for mode, found in shares.items()}
    for mode, one in slopes.items():
        print(f"per rank, {mode}: {one:.4%} of a core for the driver")
    if slopes[BY_NODE] > 0:
        print(f"ratio of the slopes: {slopes[DIRECT] / slopes[BY_NODE]:.1f}")
    kept = min(2 * deaths + 1, len(everyone))  # fewer ranks keep the machine less busy
    kill_processes(agents, (process.name for process in everyone[kept:] if process.name))
    measure_deaths(agents, everyone[:kept], deaths)
    agents.close_links()
    return shares[DIRECT][min(sizes)] + slopes[DIRECT] * (MANY - min(sizes))


def measure_deaths(agents: NodeAgents, processes: list[BenchmarkProcess], deaths: int) -> None:
    """Kill ranks with each kind of calls in turn, and print the times until they are noticed."""
    times: dict[str, list[float]] = {DIRECT: [], BY_NODE: []}
    for mode in [DIRECT, BY_NODE] * min(deaths, len(processes) // 2):
        with supervised(agents, processes, mode) as group:
            victim = processes[-1].name
            assert victim
            times[mode].append(death_seconds(group, victim))
        processes.pop()
    for mode, found in times.items():
        each = ", ".join(f"{1000 * one:.0f}" for one in sorted(found))
        print(f"death, {mode}: median {1000 * statistics.median(found):.0f} ms ({each})")
    kill_processes(agents, (process.name for process in processes if process.name))


def measure_simulated(count: int, seconds: float) -> float:
    """Return the driver's share of a core with simulated agents."""
    host_class: Any = ray.remote(
        num_cpus=0, max_concurrency=-(-count // HOSTS), concurrency_groups={"control": 1}
    )(SimulatedAgents)
    sleeper = ray.remote(num_cpus=0)(Sleeper).remote()
    hosts = [host_class.remote() for _ in range(HOSTS)]
    wait([host.heartbeat.remote() for host in hosts], START_SECONDS)
    agents, processes = NodeAgents(UnfitNodes()), []
    for number in range(count):
        host, node = hosts[number % HOSTS], f"node {number}"

        def listen(received: Mapping[int, int], host: Any = host, number: int = number) -> Any:
            return host.listen.remote(number, received)

        agents.by_node[node] = SimpleNamespace(
            listen=SimpleNamespace(remote=listen), heartbeat=host.heartbeat
        )
        for rank in range(1, RANKS_PER_AGENT + 1):
            process = BenchmarkProcess(host, node, ProcessName(node, rank, 1))
            process.result = sleeper.sleep.remote()
            processes.append(process)
    with supervised(agents, processes, BY_NODE) as group:
        share, _ = measure(group, None, seconds)
    for actor in (*hosts, sleeper):
        ray.kill(actor)
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", default="4,16,64", help="numbers of ranks")
    parser.add_argument(
        "--agents", type=int, default=MANY // RANKS_PER_AGENT, help="simulated ones"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--deaths", type=int, default=7)
    arguments = parse_arguments(parser, smoke="--ranks 1,2 --agents 4 --seconds 1 --deaths 1")
    sizes = [int(size) for size in arguments.ranks.split(",")]
    with ray_session(None, EmbeddedRay(cpus=2, niceness=0), lambda *_: None):
        direct = measure_ranks(sizes, arguments.seconds, arguments.deaths)
        share = measure_simulated(arguments.agents, arguments.seconds)
    ranks = arguments.agents * RANKS_PER_AGENT
    print(f"driver, {ranks:,} ranks of {arguments.agents} simulated agents: {share:.2%} of a core")
    print(f"driver, {MANY:,} ranks, {DIRECT}: {direct:.0%} of a core, extrapolated")
    print(f"driver, {MANY:,} ranks, {BY_NODE}: {share * MANY / ranks:.1%} of a core, extrapolated")


if __name__ == "__main__":
    main()
