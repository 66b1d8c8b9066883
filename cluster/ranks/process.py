"""Processes of ranks, and warm spares that can become ranks.

Starting a process and importing all modules takes seconds, mostly for torch and DeepSpeed. One
spare therefore waits for each bundle, and a restarted group uses the spares immediately.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.ranks.actor import RankActor
from cluster.ranks.agent_client import answered
from cluster.ranks.node_processes import ProcessName
from cluster.ray.reservation import RankBundle

ANSWER_SECONDS = 2.0


class RankProcess:
    """Actor for a bundle, and the name of its process once known.

    Attributes:
        polled_at: the monotonic time in seconds of the last poll, which is a heartbeat, too.
    """

    polled_at = -inf

    def __init__(
        self, rank_bundle: RankBundle, device: str, environment: Mapping[str, str]
    ) -> None:
        """Start the process and its imports.

        Args:
            device: the device of the rank, `cpu` or `cuda`.
            environment: environment variables that libraries read at process start.
        """
        self.rank_bundle = rank_bundle
        self.actor: Any = RankActor.options(  # type: ignore[attr-defined]
            scheduling_strategy=NodeAffinitySchedulingStrategy(rank_bundle.node, soft=False),
            runtime_env={"env_vars": dict(environment)},
        ).remote(rank_bundle.gpu)
        self.name_answer = self.actor.process.remote()
        self.actor.import_trainer.remote(device)  # runs while the group is being assembled
        self._name: ProcessName | None = None

    @property
    def name(self) -> ProcessName | None:
        """Name of the process, or None if it has not started yet or cannot start."""
        if self._name is None and answered(self.name_answer):
            self._name = ray.get(self.name_answer)
        return self._name


class SpareProcesses:
    """Warm spare processes, one for each bundle."""

    def __init__(
        self,
        device: str,
        environment: Mapping[str, str],
        kill: Callable[[list[RankProcess]], None],
    ) -> None:
        self._device = device
        self._environment = environment
        self._kill = kill
        self.waiting: list[RankProcess] = []

    def refill(self, rank_bundles: Sequence[RankBundle], rank: Any) -> None:
        """Start missing spares for these bundles, and kill the spares of other bundles.

        Args:
            rank: actor of a rank. Spares import the modules that this rank has imported so far, and
                compile the layers that it has compiled.
        """
        missing = Counter(rank_bundles)
        superfluous = []
        for process in self.waiting:
            if missing[process.rank_bundle]:
                missing[process.rank_bundle] -= 1
            else:
                superfluous.append(process)
        self._kill_spares(superfluous)
        preparation = rank.preparation.remote()
        for rank_bundle in missing.elements():
            process = self._new(rank_bundle)
            process.actor.prepare.remote(preparation)
            self.waiting.append(process)

    def take(self, rank_bundles: Sequence[RankBundle]) -> list[RankProcess]:
        """Return a process for each bundle: a healthy spare, otherwise a new process."""
        self._kill_spares(self._unhealthy())
        return [self._take(rank_bundle) or self._new(rank_bundle) for rank_bundle in rank_bundles]

    def _new(self, rank_bundle: RankBundle) -> RankProcess:
        return RankProcess(rank_bundle, self._device, self._environment)

    def _take(self, rank_bundle: RankBundle) -> RankProcess | None:
        for process in self.waiting:
            if process.rank_bundle == rank_bundle:
                self.waiting.remove(process)
                return process
        return None

    def _unhealthy(self) -> list[RankProcess]:
        """Return the spares that do not answer because they are dead, stopped or too slow."""
        signs = {process.actor.process.remote(): process for process in self.waiting}
        if signs:
            ray.wait(list(signs), num_returns=len(signs), timeout=ANSWER_SECONDS)
        return [process for sign, process in signs.items() if not answered(sign)]

    def _kill_spares(self, processes: list[RankProcess]) -> None:
        self.waiting = [process for process in self.waiting if process not in processes]
        if processes:
            self._kill(processes)
