"""Figures that a node check measures; plain values that travel between processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

CheckLevel = Literal["quick", "full"]
Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class ProductFigures:
    """Result of repeated matrix products on one device.

    Attributes:
        device: the device in messages, such as "CPU" or "GPU 3".
        kind: model of the device, torch build and threads; equal kinds compute equal bits.
        kind_name: a short form of the kind for messages.
        digest: digest of the first product.
        repeatable: whether all products had the same bits.
    """

    device: str
    kind: str
    kind_name: str
    precision: Precision
    digest: str
    repeatable: bool


@dataclass(frozen=True)
class StorageFigures:
    """Storage of a folder.

    Attributes:
        problem: the reason why nothing could be written, or None.
    """

    free_bytes: int
    problem: str | None = None


@dataclass(frozen=True)
class GpuFigures:
    """Error counters of one GPU, as NVIDIA's driver reports them.

    Attributes:
        uncorrected_errors: uncorrected ECC errors since the driver was loaded; None without ECC.
        failed_remapping: whether the GPU has failed to replace a damaged memory row.
        xid_errors: XID error codes that occurred during the check.
    """

    device: str
    uncorrected_errors: int | None = None
    failed_remapping: bool = False
    xid_errors: tuple[int, ...] = ()


@dataclass(frozen=True)
class NodeFigures:
    """Figures that the processes of one node have measured there.

    Attributes:
        storage: by the folder's name in messages.
    """

    products: tuple[ProductFigures, ...] = ()
    storage: Mapping[str, StorageFigures] = field(default_factory=dict)
    gpus: tuple[GpuFigures, ...] = ()

    def joined(self, other: "NodeFigures") -> "NodeFigures":
        """Add the figures of another process of the same node, which has a different GPU."""
        return replace(
            self, products=(*self.products, *other.products), gpus=(*self.gpus, *other.gpus)
        )


@dataclass(frozen=True)
class ClockOffset:
    """Difference of a node's clock from the driver's.

    Attributes:
        seconds: time by which the node's clock is ahead.
        error_seconds: maximum error of `seconds`: half of the round trip.
    """

    seconds: float
    error_seconds: float

    @classmethod
    def of_round_trip(cls, asked: float, node_time: float, answered: float) -> "ClockOffset":
        """Return the offset that one request for the node's time shows.

        Args:
            asked: the driver's time when it sent the request.
            node_time: the node's time when it answered.
            answered: the driver's time when the answer arrived.
        """
        return cls(node_time - (asked + answered) / 2, (answered - asked) / 2)


@dataclass(frozen=True)
class MeasuredNode:
    """Node with the results of all its measurements.

    Attributes:
        name: the node's name in messages.
        failure: the reason why the node has no figures, or None.
        link_bytes_per_second: bandwidth of the node's fastest link to another node; None if not
            measured.
    """

    name: str
    figures: NodeFigures = NodeFigures()
    clock: ClockOffset | None = None
    failure: str | None = None
    link_bytes_per_second: float | None = None
