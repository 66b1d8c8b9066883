"""Jobs for rank processes: the network part of a node check."""

import time

import torch.distributed as dist

from cluster.node_check.network import measure_links
from trainer.process.placement import Placement

SLOW_SECONDS = 0.3


def measured(placement: Placement, slow: int | None) -> dict[int, float]:
    """Measure the links; the exchanges of the rank `slow` take longer."""
    exchange = dist.batch_isend_irecv

    def late(operations):
        time.sleep(SLOW_SECONDS)
        return exchange(operations)

    if placement.rank == slow:
        dist.batch_isend_irecv = late
    try:
        return measure_links(placement)
    finally:
        dist.batch_isend_irecv = exchange
