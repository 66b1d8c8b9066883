"""A process that is, or may become, a rank; and the spare ones, which wait for that.

To start one and import everything takes seconds, most of them for torch and DeepSpeed. So as many
as there are ranks wait on each node; a group that has to be started again takes them at once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.node_agent import ProcessName, answered
from cluster.rank_actor import RankActor

ANSWER_SECONDS = 2.0


class RankProcess:
    """An actor on a node, and the name of its process once that is known."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.actor: Any = RankActor.options(  # type: ignore[attr-defined]
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote()
        self.said_name = self.actor.process.remote()

    @property
    def name(self) -> ProcessName | None:
        """None if it has not started yet, or never will."""
        return ray.get(self.said_name) if answered(self.said_name) else None


class Spares:
    """Warm processes, as many on each node as it has ranks."""

    def __init__(self, device: str, kill: Callable[[list[RankProcess]], None]) -> None:
        self._device = device
        self._kill = kill
        self.waiting: list[RankProcess] = []

    def refill(self, nodes: Sequence[str], rank: Any) -> None:
        """Have a spare for each rank on these nodes, and none elsewhere.

        They import what the rank of this actor has imported by now.
        """
        missing = Counter(nodes)
        superfluous = []
        for process in self.waiting:
            if missing[process.node]:
                missing[process.node] -= 1
            else:
                superfluous.append(process)
        self._dismiss(superfluous)
        modules = rank.modules.remote()
        for node in missing.elements():
            process = RankProcess(node)
            process.actor.import_trainer.remote(self._device)
            process.actor.import_modules.remote(modules)
            self.waiting.append(process)

    def take(self, nodes: Sequence[str]) -> list[RankProcess]:
        """Processes for ranks on these nodes: spares that are well, otherwise new ones."""
        self._dismiss(self._unwell())
        return [self._take(node) or RankProcess(node) for node in nodes]

    def _take(self, node: str) -> RankProcess | None:
        for process in self.waiting:
            if process.node == node:
                self.waiting.remove(process)
                return process
        return None

    def _unwell(self) -> list[RankProcess]:
        """Spares that have died or been stopped, or are as slow as that."""
        signs = {process.actor.process.remote(): process for process in self.waiting}
        if signs:
            ray.wait(list(signs), num_returns=len(signs), timeout=ANSWER_SECONDS)
        return [process for sign, process in signs.items() if not answered(sign)]

    def _dismiss(self, processes: list[RankProcess]) -> None:
        self.waiting = [process for process in self.waiting if process not in processes]
        if processes:
            self._kill(processes)
