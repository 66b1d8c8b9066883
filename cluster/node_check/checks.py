"""Check nodes from the driver: each node once, in parallel, compared with all nodes of the run.

processes of the nodes ──ready──▶ clocks ──▶ figures of the nodes
    ──full level──▶ network, again if a node is slow ──▶ compare ──▶ NodeCheckReport
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.node_check.figures import CheckLevel, ClockOffset, Device, MeasuredNode, NodeFigures
from cluster.node_check.verdicts import NodeCheckReport, compare, driver_clock_warning, slow_links
from trainer.process.placement import Placement

POLL_SECONDS = 0.2
CLOCK_ROUNDS = 3
# Seconds for a node to answer, many times longer than a check takes. They limit how long a hanging
# node delays the start of a run.
ANSWER_SECONDS: dict[CheckLevel, float] = {"quick": 30.0, "full": 60.0}
CLOCK_SECONDS = 0.5


@dataclass(frozen=True)
class NodeProcesses:
    """Processes on a node, each an actor with `NodeCheckMethods`.

    Attributes:
        name: the node's name in messages.
        actors: the first one measures the node; the others only their GPUs.
    """

    name: str
    actors: Sequence[Any]


class NodeChecks:
    """Checks of the nodes of a run; each node is checked once."""

    def __init__(
        self, level: CheckLevel, device: Device, threads: int, ready_seconds: float
    ) -> None:
        """Prepare checks.

        Args:
            threads: the number of CPU threads of a rank.
            ready_seconds: time limit for the start of the processes.
        """
        self._level = level
        self._device = device
        self._threads = threads
        self._ready_seconds = ready_seconds
        self._give_up: Callable[[], bool] = lambda: False
        self._nodes: dict[str, MeasuredNode] = {}

    def check(
        self,
        nodes: Mapping[str, NodeProcesses],
        folders: Mapping[str, Path],
        give_up: Callable[[], bool] = lambda: False,
    ) -> NodeCheckReport:
        """Check the nodes that have not been checked before.

        A node whose process dies or does not start is neither checked nor reported. Its loss is
        noticed elsewhere.

        Args:
            nodes: the processes of each node, by the node's id.
            folders: folders whose storage is measured, by their names in messages.
            give_up: returns True if the check should end early, because the run must stop.
        """
        self._give_up = give_up
        new = {node: processes for node, processes in nodes.items() if node not in self._nodes}
        report = NodeCheckReport(self._level, dict(self._nodes))
        if not new or not self._wait_until_ready(new):
            return report
        since = time.monotonic()
        clocks = self._clocks(new)
        measured = self._measure(new, folders)
        self._nodes |= {node: replace(measured[node], clock=clocks.get(node)) for node in measured}
        warnings = list[str]()
        answering = {node: new[node] for node in measured if self._nodes[node].failure is None}
        if self._level == "full" and len(answering) > 1:
            self._measure_network(answering, warnings)
            is_slow = any(verdict.node in answering for verdict in slow_links(self._nodes))
            if is_slow and not warnings:
                self._measure_network(answering, warnings)
        if self._give_up():
            return report
        if warning := driver_clock_warning(self._nodes):
            warnings.append(warning)
        # Nodes of earlier checks are named only if this check casts doubt on them.
        verdicts = [
            verdict
            for verdict in compare(self._nodes)
            if verdict.node in (nodes if verdict.fails else measured)
        ]
        return replace(
            report,
            nodes=dict(self._nodes),
            checked=tuple(measured),
            verdicts=tuple(verdicts),
            seconds=time.monotonic() - since,
            warnings=tuple(warnings),
        )

    def _wait_until_ready(self, nodes: Mapping[str, NodeProcesses]) -> bool:
        """Wait until all processes have imported torch; return whether they have."""
        ready = [actor.is_ready.remote() for node in nodes.values() for actor in node.actors]
        return not self._wait(ready, self._ready_seconds) and not self._give_up()

    def _clocks(self, nodes: Mapping[str, NodeProcesses]) -> dict[str, ClockOffset]:
        """Return the clock offset of each node that answers, as in NTP.

        The shortest of several round trips is used, because it has the smallest error.
        """
        offsets: dict[str, ClockOffset] = {}
        since = time.monotonic()
        for repeated in range(CLOCK_ROUNDS):
            if repeated and time.monotonic() - since > CLOCK_SECONDS:
                break
            for node, processes in nodes.items():
                # Ask one node at a time: an answer that waits behind others would seem late.
                asked = time.time()
                answer = processes.actors[0].node_clock.remote()
                self._wait([answer], ANSWER_SECONDS[self._level])
                try:
                    node_time = ray.get(answer, timeout=0)
                except RayError:
                    continue
                offset = ClockOffset.of_round_trip(asked, node_time, time.time())
                if node not in offsets or offset.error_seconds < offsets[node].error_seconds:
                    offsets[node] = offset
        return offsets

    def _measure(
        self, nodes: Mapping[str, NodeProcesses], folders: Mapping[str, Path]
    ) -> dict[str, MeasuredNode]:
        """Return the figures of the nodes, in parallel; nodes that are lost are left out."""
        request = (self._device, self._threads, self._level, folders)
        answers = {
            node: [actor.check_node.remote(*request) for actor in processes.actors]
            for node, processes in nodes.items()
        }
        seconds = ANSWER_SECONDS[self._level]
        self._wait([answer for mine in answers.values() for answer in mine], seconds)
        found = {}
        for node, mine in answers.items():
            figures, failure = NodeFigures(), None
            try:
                figures = reduce(NodeFigures.joined, ray.get(mine, timeout=0))
            except RayTaskError as error:
                failure = f"the check failed: {_last_line(error)}"
            except RayActorError:
                continue
            except RayError:  # such as GetTimeoutError, if there is no answer yet
                failure = f"no answer within {seconds:g} s"
            found[node] = MeasuredNode(nodes[node].name, figures, failure=failure)
        return found

    def _measure_network(self, nodes: Mapping[str, NodeProcesses], warnings: list[str]) -> None:
        """Add the bandwidth of each node's fastest link.

        If one node fails, all nodes fail. A failure is therefore a warning that names no node.
        """
        seconds = ANSWER_SECONDS[self._level]
        actors = [processes.actors[0] for processes in nodes.values()]
        rendezvous = actors[0].tcp_rendezvous.remote()
        try:
            self._wait([rendezvous], seconds)
            placement = Placement(
                rank=0,
                world_size=len(actors),
                device=self._device,
                threads=self._threads,
                rendezvous=ray.get(rendezvous, timeout=0),
            )
            answers = [
                actor.check_network.remote(replace(placement, rank=rank))
                for rank, actor in enumerate(actors)
            ]
            self._wait(answers, seconds)
            speeds: list[float] = ray.get(answers, timeout=0)
        except RayError as error:
            warnings.append(f"the bandwidth between nodes was not measured: {_last_line(error)}")
            return
        for node, speed in zip(nodes, speeds, strict=True):
            best = max(self._nodes[node].link_bytes_per_second or 0.0, speed)
            self._nodes[node] = replace(self._nodes[node], link_bytes_per_second=best)

    def _wait(self, answers: list[Any], seconds: float) -> list[Any]:
        """Wait until all answers have arrived, `seconds` have passed, or the run must stop.

        Returns:
            The missing answers.
        """
        deadline = time.monotonic() + seconds
        while answers and (left := deadline - time.monotonic()) > 0 and not self._give_up():
            _, answers = ray.wait(
                answers, num_returns=len(answers), timeout=min(left, POLL_SECONDS)
            )
        return answers


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
