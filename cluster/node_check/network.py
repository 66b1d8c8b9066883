"""Bandwidth between nodes.

A collective of all nodes is as slow as its slowest link, so it cannot name a node. Each node
therefore exchanges data with its neighbours in a ring, in rounds of disjoint pairs. A node that is
slow with both neighbours is slow itself.
"""

import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from trainer.process.distributed import process_group
from trainer.process.placement import Placement

TIMEOUT = timedelta(seconds=30)
LEAST_BYTES, MOST_BYTES = 2**20, 32 * 2**20
# Maximum duration of one exchange, which determines the size of the exchanged data.
EXCHANGE_SECONDS = 0.3
# The number of repetitions is fixed, because both nodes of a pair take part in each.
REPEATS = 4


def measure_network(placement: Placement) -> float:
    """Return the bytes per second of this node's fastest link; all nodes call this together.

    Args:
        placement: the place of this node among the nodes; its rank is the index of the node.
    """
    with process_group(placement, TIMEOUT):
        return max(measure_links(placement).values())


def measure_links(placement: Placement) -> dict[int, float]:
    """Return the bytes per second of the exchange with each neighbour, by the neighbour's index.

    All nodes have a common process group, and call this function at the same time.
    """
    nodes, node = placement.world_size, placement.rank
    device = placement.torch_device
    size = _agreed_bytes(device)
    links = {}
    for pairs in exchange_rounds(nodes):
        dist.barrier()
        for pair in pairs:
            if node in pair:
                (neighbour,) = {*pair} - {node}
                links[neighbour] = 2 * size / _exchange_seconds(neighbour, size, device)
    dist.barrier()
    return links


def _agreed_bytes(device: torch.device) -> int:
    """Return the size of the exchanges, the same on all nodes and smaller on a slow network."""
    values = torch.ones(LEAST_BYTES // 4, device=device)
    slowest = torch.tensor([_fastest(lambda: dist.all_reduce(values), device)], device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    fitting = int(LEAST_BYTES * EXCHANGE_SECONDS / max(slowest.item(), 1e-6))
    return min(MOST_BYTES, max(LEAST_BYTES, fitting)) // 4 * 4


def exchange_rounds(nodes: int) -> list[list[tuple[int, int]]]:
    """Return the pairs of neighbours in a ring, in rounds in which each node is in one pair."""
    if nodes == 2:
        return [[(0, 1)]]
    ring = [(node, (node + 1) % nodes) for node in range(nodes)]
    last = [ring.pop()] if nodes % 2 else []  # an odd ring needs a third round
    return [pairs for pairs in (ring[::2], ring[1::2], last) if pairs]


def _exchange_seconds(neighbour: int, size: int, device: torch.device) -> float:
    sent = torch.ones(size // 4, device=device)
    received = torch.empty_like(sent)

    def exchange() -> None:
        operations = [
            dist.P2POp(dist.isend, sent, neighbour),
            dist.P2POp(dist.irecv, received, neighbour),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    return _fastest(exchange, device)


def _fastest(collective: Callable[[], object], device: torch.device) -> float:
    durations = []
    for _ in range(REPEATS):
        since = time.perf_counter()
        collective()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        durations.append(time.perf_counter() - since)
    return min(durations)
