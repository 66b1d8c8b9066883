"""Check nodes from the driver: each node once, in parallel, compared with all nodes of the run.

processes of the nodes ──ready──▶ clocks ──▶ measure_node ──▶ slow ones again
    ──full level──▶ network, again if a node is slow ──▶ compare ──▶ NodeCheckReport

After ranks have summed gradients wrongly, `check_sums` adds known numbers over the nodes.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.node_check.clocks import RoundTrip, offset_of
from cluster.node_check.figures import (
    CheckLevel,
    ClockOffset,
    MeasuredNode,
    NetworkFigures,
    NodeCheckRequest,
    NodeFigures,
)
from cluster.node_check.sums import SumsReport, find_wrong_sums, sums_report
from cluster.node_check.verdicts import NodeVerdict, compare, driver_clock_warning, suspects
from trainer.process.placement import Placement

POLL_SECONDS = 0.2
CLOCK_ROUNDS = 3
# How often a slow node is measured again, because other processes may have disturbed it. A second
# time only if it will probably end within the bound.
RETRIES = 2
BOUND_SECONDS: dict[CheckLevel, float] = {"quick": 3.0, "full": 20.0}
# Seconds for a node to answer. They bound the start of a run with a node that hangs, and are far
# above the seconds that a check takes.
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


@dataclass(frozen=True)
class NodeCheckReport:
    """Result of a check.

    Attributes:
        nodes: all nodes that have been checked so far, by id.
        checked: ids of the nodes of this check.
        verdicts: problems of nodes that this check has found.
        seconds: duration, without the start of the processes.
        warnings: problems that no single node has.
        all_reduce_bytes_per_second: bus bandwidth over the nodes of this check; None if unknown.
    """

    level: CheckLevel
    nodes: Mapping[str, MeasuredNode]
    checked: tuple[str, ...] = ()
    verdicts: tuple[NodeVerdict, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    all_reduce_bytes_per_second: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            "all_reduce_bytes_per_second": self.all_reduce_bytes_per_second,
            "nodes": [
                {
                    **asdict(self.nodes[node]),
                    "fit": not any(v.fails and v.node == node for v in self.verdicts),
                    "problems": [v.text for v in self.verdicts if v.node == node],
                }
                for node in self.checked
            ],
        }


class NodeChecks:
    """Checks of the nodes of a run; each node is checked once, except by `check_sums`."""

    def __init__(
        self,
        level: CheckLevel,
        device: Literal["cpu", "cuda"],
        threads: int,
        ready_seconds: float,
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
        begun = time.monotonic()
        measured = self._measure(new, folders, self._level)
        self._nodes |= {node: replace(measured[node], clock=clocks.get(node)) for node in measured}
        for attempt in range(RETRIES):
            slow = {node: new[node] for node in suspects(self._nodes) if node in measured}
            now = time.monotonic()
            if not slow or (attempt and 2 * now - begun - since > BOUND_SECONDS[self._level]):
                break
            begun = now
            for node, again in self._measure(slow, folders, "quick").items():
                before = self._nodes[node]
                figures = before.figures.faster(again.figures)
                self._nodes[node] = replace(before, figures=figures, failure=again.failure)
        all_reduce, warnings = None, list[str]()
        answering = {n: new[n] for n in measured if self._nodes[n].failure is None}
        if self._level == "full" and len(answering) > 1:
            all_reduce = self._measure_network(answering, warnings)
            if suspects(self._nodes) & answering.keys() and not warnings:
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
        return NodeCheckReport(
            self._level,
            dict(self._nodes),
            checked=tuple(measured),
            verdicts=tuple(verdicts),
            seconds=time.monotonic() - since,
            warnings=tuple(warnings),
            all_reduce_bytes_per_second=all_reduce,
        )

    def check_sums(
        self, nodes: Mapping[str, NodeProcesses], give_up: Callable[[], bool] = lambda: False
    ) -> SumsReport | None:
        """Add known numbers over the nodes, and find the node with which the sums are wrong.

        Args:
            nodes, give_up: as in `check`.

        Returns:
            The report; None with a single node, or if the check has ended early.
        """
        self._give_up = give_up
        if len(nodes) < 2 or not self._wait_until_ready(nodes):
            return None
        try:
            found = find_wrong_sums(list(nodes), lambda groups: self._are_sums_right(nodes, groups))
        except RayError as error:
            if give_up():
                return None
            return SumsReport(f"the sums over nodes were not checked: {_last_line(error)}")
        return sums_report(found, {node: one.name for node, one in nodes.items()})

    def _are_sums_right(
        self, nodes: Mapping[str, NodeProcesses], groups: Sequence[Sequence[str]]
    ) -> list[bool]:
        """Test the sums over each group of nodes, in parallel; return which ones are right."""
        answers = [
            self._start_collective([nodes[node] for node in group], "check_sums")
            for group in groups
        ]
        self._wait([answer for group in answers for answer in group], ANSWER_SECONDS["full"])
        return [not any(ray.get(group, timeout=0)) for group in answers]

    def _wait_until_ready(self, nodes: Mapping[str, NodeProcesses]) -> bool:
        """Wait until all processes have imported torch; return whether they have."""
        ready = [actor.is_ready.remote() for node in nodes.values() for actor in node.actors]
        return not self._wait(ready, self._ready_seconds) and not self._give_up()

    def _clocks(self, nodes: Mapping[str, NodeProcesses]) -> dict[str, ClockOffset]:
        """Return the clock offset of each node that answers."""
        trips: dict[str, list[RoundTrip]] = {}
        since = time.monotonic()
        for repeated in range(CLOCK_ROUNDS):
            if repeated and time.monotonic() - since > CLOCK_SECONDS:
                break
            for node, processes in nodes.items():
                # One node after another: an answer that waits for its turn would seem late.
                asked = time.time()
                answer = processes.actors[0].node_clock.remote()
                self._wait([answer], ANSWER_SECONDS[self._level])
                try:
                    told = ray.get(answer, timeout=0)
                except RayError:
                    continue
                trips.setdefault(node, []).append(RoundTrip(asked, told, time.time()))
        return {node: offset_of(found) for node, found in trips.items()}

    def _measure(
        self,
        nodes: Mapping[str, NodeProcesses],
        folders: Mapping[str, Path],
        level: CheckLevel,
    ) -> dict[str, MeasuredNode]:
        """Return the figures of the nodes, in parallel; nodes that are lost are left out."""
        request = NodeCheckRequest(level, self._device, self._threads, folders)
        of_gpu = replace(request, gpu_only=True)
        answers = {
            node: [
                actor.check_node.remote(of_gpu if place else request)
                for place, actor in enumerate(processes.actors)
            ]
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
            except RayError:  # GetTimeoutError
                failure = f"no answer within {seconds:g} s"
            found[node] = MeasuredNode(nodes[node].name, figures, failure=failure)
        return found

    def _measure_network(
        self, nodes: Mapping[str, NodeProcesses], warnings: list[str]
    ) -> float | None:
        """Add the bandwidth of each node's links; return the bus bandwidth of an all-reduce.

        A node that fails lets the others fail, too, so a failure is a warning without a node.
        """
        try:
            answers = self._start_collective(nodes.values(), "check_network")
            self._wait(answers, ANSWER_SECONDS[self._level])
            found: list[NetworkFigures] = ray.get(answers, timeout=0)
        except RayError as error:
            warnings.append(f"the bandwidth between nodes was not measured: {_last_line(error)}")
            return None
        for node, figures in zip(nodes, found, strict=True):
            before = self._nodes[node].link_bytes_per_second or 0.0
            best = max(before, *figures.links.values())
            self._nodes[node] = replace(self._nodes[node], link_bytes_per_second=best)
        return min(figures.all_reduce_bytes_per_second for figures in found)

    def _start_collective(self, nodes: Collection[NodeProcesses], method: str) -> list[Any]:
        """Start a method of the first process of each node, with a place in a common group.

        Returns:
            The answers to wait for.

        Raises:
            RayError: the first node gives no address at which the processes can meet.
        """
        first = [processes.actors[0] for processes in nodes]
        rendezvous = first[0].tcp_rendezvous.remote()
        self._wait([rendezvous], ANSWER_SECONDS[self._level])
        address = ray.get(rendezvous, timeout=0)
        return [
            getattr(actor, method).remote(
                Placement(
                    rank=rank,
                    world_size=len(first),
                    device=self._device,
                    threads=self._threads,
                    rendezvous=address,
                )
            )
            for rank, actor in enumerate(first)
        ]

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
