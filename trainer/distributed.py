"""The process group of the ranks: joining, leaving, and the few collectives the loop needs.

DeepSpeed finds the group that is made here. Rank, world size and device come in a `Placement`,
which whoever starts the ranks (the cluster, or `--inline`) fills in.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Placement:
    """Where one rank runs.

    ``rendezvous`` is where the ranks find each other, ``tcp://HOST:PORT`` on rank 0's node or, if
    all are on one node, ``file://PATH``; None makes a group of one.
    ``threads`` is the number of CPU threads torch computes with: it changes rounding, so it is
    part of the numerics fingerprint.
    """

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    rendezvous: str | None = None

    @property
    def torch_device(self) -> torch.device:
        # A rank sees one GPU, its own.
        return torch.device("cuda", 0) if self.device == "cuda" else torch.device("cpu")


@contextmanager
def process_group(placement: Placement, timeout: timedelta) -> Iterator[None]:
    """Join the ranks' process group (gloo on CPU, NCCL on CUDA) and leave it at the end.

    The group must be destroyed before the process exits: ZeRO-3 ranks abort noisily otherwise.
    """
    os.environ.update(
        RANK=str(placement.rank),
        WORLD_SIZE=str(placement.world_size),
        LOCAL_RANK="0",
        LOCAL_SIZE=str(placement.local_world_size),
        DS_ACCELERATOR=placement.device,
    )
    if placement.local_world_size == placement.world_size:  # nobody else needs to reach us
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    torch.set_num_threads(placement.threads)
    if placement.device == "cuda":
        torch.cuda.set_device(placement.torch_device)
    backend = "nccl" if placement.device == "cuda" else "gloo"
    if placement.rendezvous is None:
        assert placement.world_size == 1
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    else:
        dist.init_process_group(
            backend,
            init_method=placement.rendezvous,
            rank=placement.rank,
            world_size=placement.world_size,
            timeout=timeout,
        )
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_of_integers_over_ranks(value: int, placement: Placement) -> int:
    """The sum of an integer below 2¹⁰⁶ over all ranks, exactly; a collective."""
    if placement.world_size == 1:
        return value
    halves = torch.tensor([value >> 53, value & (2**53 - 1)], dtype=torch.int64)
    high, low = sum_over_ranks(halves, placement).tolist()
    return (int(high) << 53) + int(low)


def sum_over_ranks(values: torch.Tensor, placement: Placement) -> torch.Tensor:
    """The elementwise sum of a host tensor over all ranks, on the host again."""
    if placement.world_size == 1:
        return values
    on_device = values.to(placement.torch_device)
    dist.all_reduce(on_device)
    return on_device.cpu()
