"""Figures that a node check measures; plain values that travel between processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

CheckLevel = Literal["quick", "full"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class NodeCheckRequest:
    """Request to one process to measure its node.

    Attributes:
        device: the device of the ranks.
        threads: the number of CPU threads that torch computes with.
        folders: folders whose storage is measured besides the temporary folder, by their names in
            messages.
        gpu_only: whether to measure only this process's GPU, because another process measures the
            node.
    """

    level: CheckLevel
    device: Literal["cpu", "cuda"]
    threads: int
    folders: Mapping[str, Path]
    gpu_only: bool = False


@dataclass(frozen=True)
class ProductFigures:
    """Result of repeated matrix products on one device.

    Attributes:
        device: the device in messages, such as "CPU" or "GPU 3".
        kind: model of the device, torch build and threads; equal kinds compute equal bits.
        kind_name: a short form of the kind for messages.
        digest: digest of the first product.
        repeatable: whether all products had the same bits.
        flops_per_second: speed of the fastest product.
    """

    device: str
    kind: str
    kind_name: str
    precision: Precision
    digest: str
    repeatable: bool
    flops_per_second: float


@dataclass(frozen=True)
class StorageFigures:
    """Storage of a folder.

    Attributes:
        bytes_per_second: speed of the fastest write with fsync; None if nothing could be written.
        problem: the reason why nothing could be written, or None.
    """

    bytes_per_second: float | None
    free_bytes: int
    problem: str | None = None


@dataclass(frozen=True)
class GpuFigures:
    """Counters of one GPU, as NVIDIA's driver reports them.

    Attributes:
        uncorrected_errors: uncorrected ECC errors since the driver was loaded; None without ECC.
        failed_remapping: whether the GPU has failed to replace a damaged memory row.
        throttling: reasons of the hardware or its driver to lower the clock during the check.
        xid_errors: XID error codes that occurred during the check.
    """

    device: str
    uncorrected_errors: int | None = None
    failed_remapping: bool = False
    throttling: tuple[str, ...] = ()
    xid_errors: tuple[int, ...] = ()


@dataclass(frozen=True)
class NodeFigures:
    """Figures that the processes of one node have measured there."""

    products: tuple[ProductFigures, ...] = ()
    memory_bytes_per_second: float | None = None
    storage: Mapping[str, StorageFigures] = field(default_factory=dict)
    free_memory_bytes: int | None = None
    free_shared_memory_bytes: int | None = None
    gpus: tuple[GpuFigures, ...] = ()

    def joined(self, other: "NodeFigures") -> "NodeFigures":
        """Add the figures of another process of the same node, which only measured its GPU."""
        return replace(
            self, products=(*self.products, *other.products), gpus=(*self.gpus, *other.gpus)
        )

    def faster(self, again: "NodeFigures") -> "NodeFigures":
        """Return these figures with the higher speed of two measurements of the same node."""
        earlier = {(product.device, product.precision): product for product in self.products}
        return replace(
            again,
            products=tuple(
                _faster_product(earlier.get((product.device, product.precision), product), product)
                for product in again.products
            ),
            memory_bytes_per_second=_larger(
                self.memory_bytes_per_second, again.memory_bytes_per_second
            ),
            storage={
                name: replace(
                    storage,
                    bytes_per_second=_larger(
                        storage.bytes_per_second,
                        self.storage.get(name, storage).bytes_per_second,
                    ),
                )
                for name, storage in again.storage.items()
            },
        )


@dataclass(frozen=True)
class NetworkFigures:
    """Bandwidth between nodes, as one node measured it.

    Attributes:
        all_reduce_bytes_per_second: bus bandwidth of an all-reduce over all nodes.
        links: bandwidth of the exchange with each neighbour, by the neighbour's index.
    """

    all_reduce_bytes_per_second: float
    links: Mapping[int, float]


@dataclass(frozen=True)
class ClockOffset:
    """Difference of a node's clock from the driver's.

    Attributes:
        seconds: time by which the node's clock is ahead.
        error_seconds: maximum error of `seconds`: half of the shortest round trip.
    """

    seconds: float
    error_seconds: float


@dataclass(frozen=True)
class MeasuredNode:
    """A node with everything that is known about it.

    Attributes:
        name: the node's name in messages.
        failure: the reason why the node has no figures, or None.
        link_bytes_per_second: bandwidth of its fastest link to another node; None if not measured.
    """

    name: str
    figures: NodeFigures = NodeFigures()
    clock: ClockOffset | None = None
    failure: str | None = None
    link_bytes_per_second: float | None = None


def _larger(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def _faster_product(before: ProductFigures, now: ProductFigures) -> ProductFigures:
    return replace(
        now,
        flops_per_second=max(before.flops_per_second, now.flops_per_second),
        repeatable=before.repeatable and now.repeatable and before.digest == now.digest,
    )
