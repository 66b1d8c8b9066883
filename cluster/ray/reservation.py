"""The seats of ranks: resources that a placement group reserves, and nothing else.

The ranks themselves are actors without resources, pinned to the nodes of the reservation. So any
process of its node can replace a rank that is lost, and the reservation stays: to give it back and
make it anew takes Ray a second.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.config import ClusterConfig
from cluster.ray.cluster_view import Node

PLACEMENT_SECONDS = 10.0
GPU_TASK_SECONDS = 60.0
_ROUNDING = 1e-6  # Ray counts resources in units of 1e-4


@dataclass(frozen=True)
class Seat:
    """A rank's place.

    Attributes:
        gpu: the value of CUDA_VISIBLE_DEVICES there; None without a GPU.
    """

    node: str
    gpu: str | None = None


def room(free: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """How many bundles of resources fit into the free resources."""
    return min(int(free.get(name, 0.0) / n + _ROUNDING) for name, n in bundle.items())


def choose_nodes(held: list[str], free: Mapping[str, int], most: int) -> list[str]:
    """Nodes for at most `most` ranks: first where seats are held, then where most room is.

    Seats that are held need not be made anew. And the fewer the nodes, the less data travels
    between them.
    """
    by_room = sorted(free, key=lambda node: (-free[node], node))
    return [*held, *(node for node in by_room for _ in range(free[node]))][:most]


class Reservation:
    """The reservation of a run."""

    def __init__(self, config: ClusterConfig) -> None:
        self._bundle = {"CPU": config.cpus_per_rank, "GPU": float(config.gpus_per_rank)}
        self._bundle = {name: n for name, n in self._bundle.items() if n}
        self._group: Any = None
        self.taken: list[Seat] = []

    def offer(self, usable: Mapping[str, Node], most: int) -> list[str]:
        """The nodes of at most `most` seats, taken from seats that are held and free resources."""
        held = [seat.node for seat in self.taken if seat.node in usable]
        free = {node.id: room(node.free, self._bundle) for node in usable.values()}
        return choose_nodes(held, free, most)

    def take(self, nodes: list[str]) -> bool:
        """Reserve a seat on each of these nodes; return whether Ray could do so in time."""
        nodes = sorted(nodes)  # puts ranks of the same node next to each other
        if nodes == [seat.node for seat in self.taken]:
            return True
        self.give_back()
        try:
            self._group = placement_group(
                [self._bundle] * len(nodes),
                bundle_label_selector=[{"ray.io/node-id": node} for node in nodes],
            )
        except GetTimeoutError:  # the head is away
            return False
        if self._group.wait(PLACEMENT_SECONDS) and (gpus := self._gpus(len(nodes))) is not None:
            self.taken = [Seat(node, gpu) for node, gpu in zip(nodes, gpus, strict=True)]
            return True
        self.give_back()
        return False

    def give_back(self) -> None:
        if self._group is not None:
            with suppress(GetTimeoutError):  # the head is away; it learns of this when it is back
                remove_placement_group(self._group)
        self._group = None
        self.taken = []

    def _gpus(self, count: int) -> list[str] | list[None] | None:
        """The GPU of each bundle, by the word of a task in the bundle. None if a node is lost."""
        if "GPU" not in self._bundle:
            return [None] * count
        answers = [
            _visible_gpus.options(
                num_gpus=self._bundle["GPU"],
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._group, placement_group_bundle_index=index
                ),
            ).remote()
            for index in range(count)
        ]
        try:
            gpus: list[str] = ray.get(answers, timeout=GPU_TASK_SECONDS)
        except RayError:
            return None
        return gpus


@ray.remote(num_cpus=0, max_retries=0)
def _visible_gpus() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]
