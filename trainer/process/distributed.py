"""Process group of the ranks: joining, leaving, and the few collectives used outside DeepSpeed.

DeepSpeed uses the group that this module creates.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psutil  # type: ignore[import-untyped]
import torch
import torch.distributed as dist

from foundation.environment import environment
from trainer.errors import NetworkError
from trainer.process.flight_recorder import enable_recorder
from trainer.process.placement import Placement


@contextmanager
def process_group(placement: Placement, timeout: timedelta) -> Iterator[None]:
    """Join the ranks' process group (gloo on CPU, NCCL on CUDA) and leave it at the end.

    The group must be destroyed before the process exits. Otherwise ZeRO-3 ranks abort with error
    output.

    Args:
        placement: this rank, its device and the rendezvous.
        timeout: the timeout of the group's collectives.

    Raises:
        NetworkError: no network interface has the address that other nodes use to reach this node.
    """
    os.environ.update(rank_variables(placement))
    enable_recorder()
    torch.set_num_threads(placement.threads)
    if placement.device == "cuda":
        torch.cuda.set_device(placement.torch_device)
    with environment(network_interface(placement)):
        if placement.rendezvous is None:
            assert placement.world_size == 1
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(placement.backend, store=store, rank=0, world_size=1)
        else:
            dist.init_process_group(
                placement.backend,
                init_method=placement.rendezvous,
                rank=placement.rank,
                world_size=placement.world_size,
                timeout=timeout,
            )
        try:
            yield
        finally:
            dist.destroy_process_group()


def rank_variables(placement: Placement) -> dict[str, str]:
    """Return the environment variables that identify a rank to DeepSpeed and other libraries."""
    return {
        "RANK": str(placement.rank),
        "WORLD_SIZE": str(placement.world_size),
        "LOCAL_RANK": str(placement.device_index),  # DeepSpeed uses it as the GPU's index
        "LOCAL_SIZE": str(placement.local_world_size),
        "DS_ACCELERATOR": placement.device,
    }


def network_interface(placement: Placement) -> dict[str, str]:
    """Return the environment variable that selects the network interface of gloo or NCCL.

    By default, gloo uses the address that the host's name resolves to. On many hosts this is
    127.0.0.1 or 127.0.1.1, which other nodes cannot reach. NCCL uses the first interface that is
    up. If the environment already has the variable, this function keeps its value and returns an
    empty dict.

    Raises:
        NetworkError: there are other nodes, and no interface has this node's address.
    """
    variable = f"{placement.backend.upper()}_SOCKET_IFNAME"
    if os.environ.get(variable):
        return {}
    if placement.on_one_node:  # no other node needs to reach this one
        return {variable: "lo"}
    addresses = {
        name: [entry.address for entry in entries]
        for name, entries in psutil.net_if_addrs().items()
    }
    for name, held in addresses.items():
        if placement.node_address in held:
            # NCCL interprets a bare name as a prefix: eth1 would match eth10, too.
            return {variable: f"={name}" if placement.backend == "nccl" else name}
    listed = "; ".join(f"{name} {', '.join(held)}" for name, held in sorted(addresses.items()))
    raise NetworkError(
        f"No network interface of this node has the address {placement.node_address}, which other "
        f"nodes use to reach this node. The interfaces are {listed}. Set {variable} to the "
        "interface that other nodes can reach, or start Ray on this node with "
        "--node-ip-address=ADDRESS and an address of these interfaces"
    )


def sum_of_integers_over_ranks(value: int, placement: Placement) -> int:
    """Return the exact sum of one integer per rank, each below 2¹⁰⁶; a collective."""
    if placement.world_size == 1:
        return value
    halves = torch.tensor([value >> 53, value & (2**53 - 1)], dtype=torch.int64)
    high, low = sum_over_ranks(halves, placement).tolist()
    return (int(high) << 53) + int(low)


def gather_texts(text: str, placement: Placement) -> list[str]:
    """Return the text of every rank, in rank order; a collective."""
    if placement.world_size == 1:
        return [text]
    own = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    lengths = torch.zeros(placement.world_size, dtype=torch.int64)
    lengths[placement.rank] = len(own)
    lengths = sum_over_ranks(lengths, placement)
    table = torch.zeros((placement.world_size, int(lengths.max())), dtype=torch.uint8)
    table[placement.rank, : len(own)] = own  # the other ranks add zeros
    rows = sum_over_ranks(table, placement).numpy()
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


def sum_over_ranks(values: torch.Tensor, placement: Placement) -> torch.Tensor:
    """Return the elementwise sum of a host tensor over all ranks, on the host; a collective."""
    if placement.world_size == 1:
        return values
    on_device = values.to(placement.torch_device)
    dist.all_reduce(on_device)
    return on_device.cpu()
