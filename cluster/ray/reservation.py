"""Reservations of ranks: placement groups that reserve resources and hold no processes.

The ranks themselves are actors without resources, pinned to the nodes of the reservation. Any
process on the same node can therefore replace a lost rank without a new reservation. Releasing
resources and reserving them again takes Ray a second.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.config import ClusterConfig, Placement
from cluster.ray.cluster_view import Node
from foundation.wording import counted, join_items

PLACEMENT_SECONDS = 10.0
POLL_SECONDS = 1  # Ray counts whole seconds
GPU_TASK_SECONDS = 60.0
MAX_LISTED_NODES = 8
# Names of resources that Ray adds to each node automatically.
_OF_RAY = re.compile(r"(node:.*|memory|object_store_memory|accelerator_type:.*)$")
_ROUNDING = 1e-6  # Ray counts resources in units of 1e-4


@dataclass(frozen=True)
class RankBundle:
    """Reserved resources of one rank.

    Attributes:
        node: the id of the node on which the resources are reserved.
        gpu: the rank's value of CUDA_VISIBLE_DEVICES; None without a GPU.
    """

    node: str
    gpu: str | None = None


def room(free: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """Return how many bundles of this size fit into the free resources."""
    return min(int(free.get(name, 0.0) / n + _ROUNDING) for name, n in bundle.items())


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether a node with these labels has all of the wanted labels."""
    return wanted.items() <= labels.items()


def choose_nodes(
    held: list[str], free: Mapping[str, int], most: int, placement: Placement = "pack"
) -> list[str]:
    """Return the ids of nodes for at most `most` ranks, one entry per rank.

    Args:
        held: the nodes of the currently held bundles; `free` does not include their resources.
        free: the number of additional ranks that fit on each node.
        placement: `pack` keeps the held bundles and adds as few nodes as possible. `spread`
            distributes ranks over the nodes as evenly as their capacities allow; among equally
            even distributions, it selects one that keeps the largest number of held bundles.
    """
    if placement == "spread":
        return _spread(Counter(held), free, most)
    by_room = sorted(free, key=lambda node: (node not in held, -free[node], node))
    return [*held, *(node for node in by_room for _ in range(free[node]))][:most]


def _spread(held: Counter[str], free: Mapping[str, int], most: int) -> list[str]:
    rooms = {node: held[node] + free.get(node, 0) for node in {*held, *free}}
    chosen: Counter[str] = Counter()
    while chosen.total() < most:
        open_nodes = [node for node in rooms if chosen[node] < rooms[node]]
        if not open_nodes:
            break
        # Prefer the node with the fewest assigned ranks. Among equals, prefer a node with an unused
        # held bundle, then the node with the largest capacity.
        next_node = min(
            open_nodes,
            key=lambda node: (chosen[node], chosen[node] >= held[node], -rooms[node], node),
        )
        chosen[next_node] += 1
    return sorted(chosen.elements())


def max_possible_ranks(config: ClusterConfig, nodes: Iterable[Node]) -> int:
    """Return how many ranks these nodes could hold if no other job used them."""
    bundle = config.resources_of_a_rank
    fitting = [node for node in nodes if has_labels(node.labels, config.node_labels)]
    return sum(room(node.total, bundle) for node in fitting)


def node_capabilities(nodes: Iterable[Node]) -> str:
    """Return a description of the resources and labels on each node that ranks may request."""
    told = [_capabilities(node) for node in sorted(nodes, key=lambda node: node.name)]
    more = len(told) - MAX_LISTED_NODES
    return "; ".join(told[:MAX_LISTED_NODES]) + (
        f"; and {counted(more, 'more node')}" if more > 0 else ""
    )


def _capabilities(node: Node) -> str:
    amounts = {name: n for name, n in sorted(node.total.items()) if not _OF_RAY.match(name)}
    parts = [f"{name} {n:g}" for name, n in ({"CPU": 0.0, "GPU": 0.0} | amounts).items()]
    labels = [
        f"{key}={value}" for key, value in sorted(node.labels.items()) if "ray.io/" not in key
    ]
    return f"{node.name} has {', '.join(parts)} and {join_items(labels) if labels else 'no'} labels"


class Reservation:
    """Reservation of the resources of a run's ranks.

    Attributes:
        taken: the reserved bundles, one per rank; empty without a reservation.
    """

    def __init__(self, config: ClusterConfig, give_up: Callable[[], bool] = lambda: False) -> None:
        """Create an empty reservation.

        Args:
            give_up: returns True if `take` should not wait any longer, because the run must stop.
        """
        self._give_up = give_up
        self._bundle = config.resources_of_a_rank
        self._labels = config.node_labels
        self._placement = config.placement
        self._group: Any = None
        self.taken: list[RankBundle] = []

    def offer(self, usable: Mapping[str, Node], most: int) -> list[str]:
        """Return nodes for at most `most` ranks, given the held bundles and the free resources.

        Args:
            usable: the nodes that may hold ranks, by id.
        """
        held = [rank_bundle.node for rank_bundle in self.taken if rank_bundle.node in usable]
        free = {
            node.id: room(node.free, self._bundle)
            for node in usable.values()
            if has_labels(node.labels, self._labels)
        }
        return choose_nodes(held, free, most, self._placement)

    def take(self, nodes: list[str]) -> bool:
        """Reserve a bundle on each of these nodes; return whether Ray could do so in time."""
        nodes = sorted(nodes)  # puts ranks of the same node next to each other
        if nodes == [rank_bundle.node for rank_bundle in self.taken]:
            return True
        self.release()
        try:
            self._group = placement_group(
                [self._bundle] * len(nodes),
                bundle_label_selector=[{"ray.io/node-id": node} for node in nodes],
            )
        except GetTimeoutError:  # the head does not answer
            return False
        if self._is_placed() and (gpus := self._gpus(len(nodes))) is not None:
            self.taken = [RankBundle(node, gpu) for node, gpu in zip(nodes, gpus, strict=True)]
            return True
        self.release()
        return False

    def _is_placed(self) -> bool:
        """Wait for a limited time until Ray has placed the bundles; return whether it has."""
        deadline = time.monotonic() + PLACEMENT_SECONDS
        while not self._group.wait(POLL_SECONDS):
            if self._give_up() or time.monotonic() > deadline:
                return False
        return True

    def release(self) -> None:
        if self._group is not None:
            with suppress(GetTimeoutError):  # the head removes the group once it is reachable again
                remove_placement_group(self._group)
        self._group = None
        self.taken = []

    def _gpus(self, count: int) -> list[str] | list[None] | None:
        """Return the GPU of each bundle, as a task in the bundle reports it.

        Without GPUs in the bundles, every entry is None. The whole result is None if a task fails,
        for example because a node is lost.
        """
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
