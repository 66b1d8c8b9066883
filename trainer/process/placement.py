"""Placement of a rank, as set by the process that starts the ranks (cluster, or `--inline`)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import torch


@dataclass(frozen=True)
class Placement:
    """Node, device and rendezvous of one rank.

    Attributes:
        rank: the index of the rank among all ranks.
        world_size: the number of ranks.
        local_rank: the index of the rank among the ranks of its node, from 0.
        local_world_size: the number of ranks of its node, which may differ between nodes.
        device: the type of its device.
        threads: the number of CPU threads that torch computes with. It changes rounding, so it is
            part of the numerics fingerprint.
        rendezvous: the URL at which the ranks meet: `tcp://HOST:PORT` on rank 0's node or, if all
            are on one node, `file://PATH`. None if there is only one rank.
        node_address: the address that other nodes use to reach this node; may be None if all ranks
            are on one node.
        memory_folder: the attempt's folder in the node's memory, for the memory tier of checkpoints
            (`run_store.checkpoints.memory_folder`); None without that tier.
        memory_neighbor_ranks: the number of ranks whose memory files this node copies.
        node_ids: the id of each rank's node; empty if all ranks are on one node.
        node_names: the name of each rank's node in messages; may be empty, too.
        generated_code: the hash of the code that the compiler has generated for this rank, or None.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    rendezvous: str | None = None
    node_address: str | None = None
    memory_folder: "Path | None" = None
    memory_neighbor_ranks: int = 0
    node_ids: tuple[str, ...] = ()
    node_names: tuple[str, ...] = ()
    generated_code: str | None = None

    @property
    def on_one_node(self) -> bool:
        return self.local_world_size == self.world_size

    @property
    def device_index(self) -> int:
        """Index of the device in the rank's process; 0 on GPUs, where the process sees only one."""
        return 0 if self.device == "cuda" else self.local_rank

    @property
    def backend(self) -> Literal["gloo", "nccl"]:
        return "nccl" if self.device == "cuda" else "gloo"

    @property
    def torch_device(self) -> "torch.device":
        import torch  # imported late, because the supervisor places ranks without torch

        cuda = self.device == "cuda"
        return torch.device("cuda", self.device_index) if cuda else torch.device("cpu")
