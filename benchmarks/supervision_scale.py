"""Measure how the CPU time of supervision grows with the ranks, and how soon news is noticed.

Ranks are actors that do not import torch. They report as a training rank does: two positions in
each step, and now and then an urgent notice. The driver runs its loop and sends heartbeats.

`--ranks` are actors with one rank in each. `--many` ranks are threads of 16 actors, with an agent
for each actor, so that the driver has as many calls as on a cluster. Then ranks of a group of 8 are
killed, half of them while Ray's head (`gcs_server`) is stopped.

    .venv/bin/python benchmarks/supervision_scale.py [--ranks 4,16,64] [--many 1024] [--seconds N]
        [--deaths N]
"""

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import psutil
import ray

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.cpu import cpu_seconds
from cluster.config import ClusterConfig
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import HeartbeatSender, Watchdog
from cluster.ranks.agent_client import NodeAgents, wait
from cluster.ranks.death_watch import DeathWatch
from cluster.ranks.group import RankGroup
from cluster.ranks.node_agent import start_agent
from cluster.ranks.node_processes import ProcessName, kill_processes
from cluster.ranks.process import RankProcess
from cluster.ranks.rank_pool import POLLED_SECONDS
from cluster.ranks.reporting import ReportingMethods
from cluster.ranks.reports import Mailbox, Notice, ReceivedReports, ReportBatch
from cluster.ray.embedded import EmbeddedRay
from cluster.ray.reservation import RankBundle
from cluster.ray.session import ray_session
from cluster.supervision.attempt import POLL_SECONDS

STEP_SECONDS = 0.5
NOTICE_STEPS = 400  # mean number of steps between two notices of a rank
HOSTS = 16  # actors whose threads are ranks
START_SECONDS = 300.0
SETTLE_SECONDS = 5.0
DEATH_RANKS = 8
URGENT_SECONDS = 0.2  # limit for an urgent report
PAUSE_SECONDS = 1.0  # seconds between stopping the head and killing a rank


def report_steps(mailboxes: Sequence[Mailbox]) -> None:
    """Report steps of all ranks in turn, without an end, with timestamps in some of them."""
    for step in range(1, 10**9):
        for mailbox in mailboxes:
            mailbox.progress("data", step)
            mailbox.progress("step", step, "epoch 0, window 3, micro-batch 17")
            time.sleep(STEP_SECONDS / len(mailboxes))
            if random.random() < 1 / NOTICE_STEPS:
                mailbox.notice(str(time.monotonic()))


class Rank(ReportingMethods):
    """Actor with a rank that reports steps without training."""

    def __init__(self) -> None:
        # Long, because the supervision of some ranks begins later than that of others.
        super().__init__(Watchdog(timeout_seconds=600.0).heartbeat)

    def train(self) -> None:
        report_steps([self._mailbox])


class Host:
    """Actor with many ranks that report steps."""

    def __init__(self, ranks: int) -> None:
        self._mailboxes = [Mailbox() for _ in range(ranks)]
        self._never = threading.Event()

    @ray.method(concurrency_group="control")
    def process(self) -> ProcessName:
        return ProcessName.of_this_process()

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> None: ...

    @ray.method(concurrency_group="train")
    def train(self, rank: int) -> None:
        if rank == 0:
            report_steps(self._mailboxes)
        self._never.wait()

    @ray.method(concurrency_group="reports", enable_task_events=False)
    def poll(self, rank: int, received: int, seconds: float) -> ReportBatch:
        self._mailboxes[rank].acknowledge(received)
        return self._mailboxes[rank].reports_since(received, seconds)


class BenchmarkProcess(RankProcess):
    """Process of the pool, with a different actor."""

    def __init__(self, actor: Any, name: ProcessName, result: Any) -> None:
        """Describe a rank that trains.

        Args:
            result: the pending answer of its call of `train`.
        """
        self.actor = actor
        self.rank_bundle = RankBundle(name.node)
        self._name = name
        self.result = result
        self.reports = ReceivedReports()  # shared by all groups of the benchmark


@contextmanager
def supervised(agents: NodeAgents, processes: Sequence[BenchmarkProcess]) -> Iterator[RankGroup]:
    """Supervise ranks that train already, with heartbeats as in `RankPool`."""
    names = [f"Rank {rank}" for rank in range(len(processes))]
    group = RankGroup(ClusterConfig(), [*processes], names, SuspendAwareClock())
    group._results = [process.result for process in processes]
    group._received = [process.reports for process in processes]
    watched = {process.name for process in processes if process.name}
    group._death_watch = DeathWatch(agents.by_node, watched)

    def actors() -> Iterator[Any]:
        yield from agents.by_node.values()
        for process in processes:
            if time.monotonic() - process.polled_at > POLLED_SECONDS:
                yield process.actor

    with HeartbeatSender(actors):
        yield group


def supervise(group: RankGroup, seconds: float) -> list[float]:
    """Run the driver's loop; return the seconds that each urgent report took."""
    delays: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        group.wait(POLL_SECONDS)
        poll = group.poll()
        if poll.failure:
            raise poll.failure
        now = time.monotonic()
        notices = [report for _, report in poll.reports if isinstance(report, Notice)]
        delays += [now - float(notice.text) for notice in notices]
    return delays


def measure(group: RankGroup, seconds: float) -> float:
    """Print the CPU time of the driver and an agent, and the delays of urgent reports.

    Returns:
        The driver's share of a core.
    """
    supervise(group, SETTLE_SECONDS)
    agent, *_ = processes_of_ray("ray::NodeAgent")
    before, driver, started = cpu_seconds(agent), time.process_time(), time.monotonic()
    delays = supervise(group, seconds)
    passed = time.monotonic() - started
    of_driver = (time.process_time() - driver) / passed
    of_agent = (cpu_seconds(agent) - before) / passed
    text = f"{len(group.processes):5} {of_driver:8.2%} {of_agent:8.2%}   "
    if delays:
        late = sum(delay > URGENT_SECONDS for delay in delays)
        text += f"{in_milliseconds(delays)}, {late} of {len(delays)} above {URGENT_SECONDS} s"
    print(text, flush=True)
    return of_driver


def in_milliseconds(seconds: Sequence[float]) -> str:
    median, longest = 1000 * statistics.median(seconds), 1000 * max(seconds)
    return f"median {median:.0f} ms, longest {longest:.0f} ms"


def processes_of_ray(name: str) -> list[int]:
    """Return the ids of the processes of this benchmark's Ray whose command contains a name."""
    children = psutil.Process().children(recursive=True)
    return [one.pid for one in children if name in " ".join(one.cmdline())]


def start_ranks(node: str, count: int) -> list[BenchmarkProcess]:
    """Start actors with one rank in each, which train."""
    groups = {"control": 1, "train": 1, "reports": 1}
    actor_class: Any = ray.remote(num_cpus=0, concurrency_groups=groups)(Rank)
    actors = [actor_class.remote() for _ in range(count)]
    names = [actor.process.remote() for actor in actors]
    wait(names, START_SECONDS)
    return [
        BenchmarkProcess(actor, ray.get(name), actor.train.remote())
        for actor, name in zip(actors, names, strict=True)
    ]


def measure_ranks(node: str, sizes: list[int], seconds: float, deaths: int) -> None:
    """Measure ranks with a process each: CPU time and delays, and the delays of deaths."""
    agents = NodeAgents(UnfitNodes())
    agents.start({node: "here"}, start_agent)
    processes = start_ranks(node, max(sizes))
    shares = {}
    print("ranks   driver    agent   (% of a core)   urgent reports")
    for size in sizes:
        with supervised(agents, processes[:size]) as group:
            shares[size] = measure(group, seconds)
    if len(shares) > 1:
        slope = statistics.linear_regression(list(shares), list(shares.values())).slope
        print(f"per rank: {slope:.4%} of a core for the driver")
    kept = min(DEATH_RANKS, len(processes))  # with fewer ranks, so that the machine is less busy
    kill_processes(agents, (process.name for process in processes[kept:] if process.name))
    measure_deaths(node, agents, processes[:kept], deaths)
    for agent in agents.by_node.values():
        ray.kill(agent)


def measure_deaths(
    node: str, agents: NodeAgents, processes: list[BenchmarkProcess], deaths: int
) -> None:
    """Kill ranks, with the head running and stopped in turn; print how soon it was noticed."""
    (head,) = processes_of_ray("gcs_server")
    times: dict[str, list[float]] = {"head running": [], "head stopped": []}
    for state in [*times] * deaths:
        with supervised(agents, processes) as group:
            supervise(group, SETTLE_SECONDS)
            victim = processes.pop()
            try:
                if state == "head stopped":
                    os.kill(head, signal.SIGSTOP)
                    supervise(group, PAUSE_SECONDS)
                times[state].append(death_seconds(group, victim))
            finally:
                os.kill(head, signal.SIGCONT)
        processes += start_ranks(node, 1)
    for state, found in times.items():
        each = ", ".join(f"{1000 * one:.0f}" for one in sorted(found))
        print(f"death of one of {len(processes)} ranks, {state}: {in_milliseconds(found)} ({each})")
    kill_processes(agents, (process.name for process in processes if process.name))


def death_seconds(group: RankGroup, victim: BenchmarkProcess) -> float:
    """Kill a rank; return the time until the group reports it."""
    assert victim.name
    started = time.monotonic()
    os.kill(victim.name.id, signal.SIGKILL)
    while not group.poll().failure:
        group.wait(POLL_SECONDS)
    return time.monotonic() - started


def measure_many(count: int, seconds: float) -> None:
    """Measure ranks that are threads of a few actors, each of which has an agent."""
    per_host = -(-count // HOSTS)
    groups = {"control": 1, "train": per_host, "reports": per_host}
    host_class: Any = ray.remote(num_cpus=0, concurrency_groups=groups)(Host)
    hosts = [host_class.remote(per_host) for _ in range(HOSTS)]
    here: str = ray.get_runtime_context().get_node_id()
    agents = NodeAgents(UnfitNodes())
    processes = []
    for number, host in enumerate(hosts):
        name = ray.get(host.process.remote())
        node = f"node {number}"
        agents.start({node: node}, lambda _: start_agent(here))
        for rank in range(per_host):
            poll = SimpleNamespace(remote=partial(host.poll.remote, rank))
            actor = SimpleNamespace(poll=poll, heartbeat=host.heartbeat)
            result = host.train.remote(rank)
            renamed = ProcessName(node, name.id, name.started)
            processes.append(BenchmarkProcess(actor, renamed, result))
    wait([agent.heartbeat.remote() for agent in agents.by_node.values()], START_SECONDS)
    with supervised(agents, processes) as group:
        measure(group, seconds)
    for actor in (*hosts, *agents.by_node.values()):
        ray.kill(actor)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--ranks", default="4,16,64", help="numbers of ranks")
    parser.add_argument("--many", type=int, default=1024, help="number of ranks in 16 actors")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--deaths", type=int, default=7, help="for each state of the head")
    arguments = parse_arguments(parser, smoke="--ranks 1,2 --many 32 --seconds 1 --deaths 1")
    sizes = [int(size) for size in arguments.ranks.split(",")]
    with ray_session(None, EmbeddedRay(cpus=2, niceness=0), lambda *_: None):
        node: str = ray.get_runtime_context().get_node_id()
        measure_ranks(node, sizes, arguments.seconds, arguments.deaths)
        measure_many(arguments.many, arguments.seconds)


if __name__ == "__main__":
    main()
