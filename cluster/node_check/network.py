"""Bandwidth between nodes, and sums over nodes.

The bandwidth is that of an all-reduce over all nodes, and of exchanges between neighbours.

The all-reduce is as slow as its slowest link, so it cannot name a node. Each node therefore
exchanges data with its neighbours in a ring, in rounds of disjoint pairs. A node that is slow with
both neighbours is slow itself.
"""

import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from cluster.node_check.figures import NetworkFigures
from trainer.process.distributed import process_group
from trainer.process.placement import Placement

TIMEOUT = timedelta(seconds=30)
LEAST_BYTES, MOST_BYTES = 2**20, 32 * 2**20
# Longest duration of one collective, from which its size follows.
COLLECTIVE_SECONDS = 0.3
# All nodes repeat equally often, because each repetition is a collective.
REPEATS = 4
SUM_ELEMENTS = 2**20
SUM_REPEATS = 8


def measure_network(placement: Placement) -> NetworkFigures:
    """Measure the bandwidth of this node; a collective of one process on each node.

    Args:
        placement: the place of this node among the nodes; its rank is the index of the node.
    """
    with process_group(placement, TIMEOUT):
        return measure_in_group(placement)


def measure_in_group(placement: Placement) -> NetworkFigures:
    """Measure the bandwidth of this node in the process group of all nodes."""
    nodes, node = placement.world_size, placement.rank
    device = placement.torch_device
    size = _agreed_bytes(device)
    values = torch.ones(size // 4, device=device)
    seconds = _fastest(lambda: dist.all_reduce(values), device)
    links = {}
    for pairs in exchange_rounds(nodes):
        dist.barrier()
        for pair in pairs:
            if node in pair:
                (neighbour,) = {*pair} - {node}
                links[neighbour] = 2 * size / _exchange_seconds(neighbour, size, device)
    dist.barrier()
    return NetworkFigures(2 * (nodes - 1) / nodes * size / seconds, links)


def count_wrong_sums(placement: Placement) -> int:
    """Add known numbers over nodes; return the number of sums that are wrong here; a collective.

    Node n adds n + 1 times the same numbers, which are integers and others in each repetition. So
    the sums are exact, and a share that is missing, late or of another node makes them wrong.

    Args:
        placement: as in `measure_network`.
    """
    nodes, wrong = placement.world_size, 0
    shares = nodes * (nodes + 1) // 2
    largest = 2**24 // shares
    with process_group(placement, TIMEOUT):
        for repeat in range(SUM_REPEATS):
            generator = torch.Generator().manual_seed(repeat)
            numbers = torch.randint(-largest, largest + 1, (SUM_ELEMENTS,), generator=generator)
            numbers = numbers.float().to(placement.torch_device)
            total = numbers * (placement.rank + 1)
            dist.all_reduce(total)
            wrong += int(torch.count_nonzero(total != numbers * shares))
    return wrong


def _agreed_bytes(device: torch.device) -> int:
    """Return the size of the collectives, the same on all nodes and smaller on a slow network."""
    values = torch.ones(LEAST_BYTES // 4, device=device)
    slowest = torch.tensor([_fastest(lambda: dist.all_reduce(values), device)], device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    fitting = int(LEAST_BYTES * COLLECTIVE_SECONDS / max(slowest.item(), 1e-6))
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
