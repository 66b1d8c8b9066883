"""Processes that measure their node: ranks before they train, and actors that only do this."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import ray

from cluster.node_check.figures import CheckLevel, Device, NodeFigures
from foundation.free_ports import free_port
from trainer.process.placement import Placement


class NodeCheckMethods:
    """Methods of an actor that measures its node.

    The actor has a concurrency group `control`. These methods import torch when they are called.
    """

    @ray.method(concurrency_group="control")
    def node_clock(self) -> float:
        """Return this node's time, in seconds since the epoch."""
        from cluster.node_check.measure import clock

        return clock()

    @ray.method(concurrency_group="control")
    def tcp_rendezvous(self) -> str:
        """Return a rendezvous address with a free port of this node."""
        host = ray.util.get_node_ip_address()
        return f"tcp://{f'[{host}]' if ':' in host else host}:{free_port()}"

    def is_ready(self) -> bool:
        """Return True once the actor has imported torch, and earlier calls have returned."""
        import cluster.node_check.measure  # noqa: F401

        return True

    def check_node(
        self, device: Device, threads: int, level: CheckLevel, folders: Mapping[str, Path]
    ) -> NodeFigures:
        """Run `measure_node`."""
        from cluster.node_check.measure import measure_node

        return measure_node(device, threads, level, folders)

    def check_network(self, placement: Placement) -> float:
        """Run `measure_network`."""
        from cluster.node_check.network import measure_network

        address = ray.util.get_node_ip_address()
        return measure_network(replace(placement, node_address=address))


@ray.remote(num_cpus=0, max_restarts=0, concurrency_groups={"control": 1})
class NodeCheckActor(NodeCheckMethods):
    """Actor that only measures its node, for a plan."""

    def __init__(self, gpu: str | None) -> None:
        """Prepare the process.

        Args:
            gpu: value of CUDA_VISIBLE_DEVICES, or None without a GPU.
        """
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
