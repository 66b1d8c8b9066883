"""Compare the figures of nodes, and decide which nodes fail: a pure function.

    bits       within a kind (model and torch build): the minority fails; without a majority, all do
    speeds     compared with the median of the others: of the kind for products and memory, of all
               nodes for storage and network
    the rest   limits that do not depend on other nodes: clock, free space, counters of GPUs

`docs/decisions/0104` justifies the thresholds.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.node_check.figures import MeasuredNode, ProductFigures, StorageFigures
from foundation.wording import counted, join_items

# A node is too slow below this share of the median of the others.
LEAST_SHARE = 0.5
LEAST_STORAGE_SHARE = 0.25
# Storage of this speed is sufficient, however fast the others are.
SUFFICIENT_STORAGE = 200e6
CLOCK_WARNING_SECONDS = 1.0
# The margin before a drained node's end (`cluster.supervision.attempt_end`).
CLOCK_LIMIT_SECONDS = 5.0
LEAST_FREE_MEMORY = 500_000_000
LEAST_FREE_SHARED_MEMORY = 16_000_000
LEAST_FREE_STORAGE = 100_000_000
NODE_CHECK_REMEDY = (
    ". Repair or replace the nodes, lower cluster.ranks, or train on all nodes regardless with "
    "cluster.node_check=off"
)
MAX_LISTED = 4
DEFECTIVE = "Test its memory and processor, or replace it"
DIGEST_CHARACTERS = 12


@dataclass(frozen=True)
class NodeVerdict:
    """A problem of one node.

    Attributes:
        node: the node's id.
        reason: the problem and the remedy, with the node's name, without a full stop.
        figures: the node's figure and those of the others, or the limit.
        fails: whether no ranks may start on the node; otherwise the problem is a warning.
    """

    node: str
    reason: str
    figures: str
    fails: bool = True

    @property
    def text(self) -> str:
        return f"{self.reason} ({self.figures})"


@dataclass(frozen=True)
class _Speed:
    """One speed of one node.

    Attributes:
        group: speeds are compared within a group.
        what: the slow part, completes "Node X has a slow …".
        share: the share of the median of the others below which the node fails.
        sufficient: speed that is never too slow.
        shown: formats a speed.
    """

    node: str
    group: str
    what: str
    remedy: str
    value: float
    shown: Callable[[float], str]
    share: float = LEAST_SHARE
    sufficient: float = float("inf")


def compare(nodes: Mapping[str, MeasuredNode]) -> list[NodeVerdict]:
    """Return the problems of nodes, in the order of the nodes; a node may have several.

    Args:
        nodes: all nodes of the run, by id.
    """
    checks = (_silent, _products, _slow, _clocks, _space, _gpus)
    found = [verdict for check in checks for verdict in check(nodes)]
    places = {node: place for place, node in enumerate(nodes)}
    return sorted(found, key=lambda verdict: places[verdict.node])


def suspects(nodes: Mapping[str, MeasuredNode]) -> set[str]:
    """Return the nodes that are too slow, and are therefore worth a second measurement."""
    return {verdict.node for verdict in _slow(nodes)}


def _silent(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
    for node, measured in nodes.items():
        if measured.failure is not None:
            yield NodeVerdict(
                node,
                f"Node {measured.name} cannot be checked. See Ray's logs of this node",
                measured.failure,
            )


def _products(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
    kinds: dict[str, list[tuple[str, ProductFigures]]] = {}
    for node, measured in nodes.items():
        for product in measured.figures.products:
            kinds.setdefault(product.kind, []).append((node, product))
            if not product.repeatable:
                yield NodeVerdict(
                    node,
                    f"Node {measured.name} computes different bits when it repeats a matrix "
                    f"product on its {product.device}. {DEFECTIVE}",
                    f"{product.precision}, {product.kind_name}",
                )
    for members in kinds.values():
        repeatable = [(node, product) for node, product in members if product.repeatable]
        yield from _minority(nodes, repeatable)


def _minority(
    nodes: Mapping[str, MeasuredNode], members: Sequence[tuple[str, ProductFigures]]
) -> Iterator[NodeVerdict]:
    """Yield a verdict for each device whose digest is not that of the majority of its kind."""
    counts = Counter(product.digest for _, product in members)
    if len(counts) < 2:
        return
    (digest, most), *_ = counts.most_common()
    majority = digest if most > len(members) / 2 else None
    for node, product in members:
        if product.digest == majority:
            continue
        others = [other for other in members if other != (node, product)]
        if majority is not None:
            who = f"Node {nodes[node].name} computes"
            remedy = DEFECTIVE
        elif len(members) == 2:
            names = join_items(_named(nodes, *member) for member in members)
            who = f"One of two computes wrongly, {names}: node {nodes[node].name} computes"
            remedy = "Add a third node of the kind to find out which one, or test both"
        else:
            who = f"There is no majority: node {nodes[node].name} computes"
            remedy = "Test all nodes of the kind"
        yield NodeVerdict(
            node,
            f"{who} other bits of the same matrix product on its {product.device} than other "
            f"devices of its kind. {remedy}",
            f"{product.precision} digest {product.digest[:DIGEST_CHARACTERS]}, the "
            f"{counted(len(others), 'other')} of kind {product.kind_name}: "
            + _digests(other.digest for _, other in others),
        )


def _named(nodes: Mapping[str, MeasuredNode], node: str, product: ProductFigures) -> str:
    return f"{nodes[node].name} {product.device}"


def _digests(digests: Iterable[str]) -> str:
    counts = Counter(digests).most_common(MAX_LISTED)
    return ", ".join(
        f"{digest[:DIGEST_CHARACTERS]}{f' ({count} times)' if count > 1 else ''}"
        for digest, count in counts
    )


def _slow(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
    groups: dict[str, list[_Speed]] = {}
    for node, measured in nodes.items():
        for speed in _speeds(node, measured):
            groups.setdefault(speed.group, []).append(speed)
    for speeds in groups.values():
        for speed in speeds:
            others = [other.value for other in speeds if other is not speed]
            if not others:
                continue
            median = statistics.median(others)
            if speed.value < speed.share * median and speed.value < speed.sufficient:
                yield NodeVerdict(
                    speed.node,
                    f"Node {nodes[speed.node].name} has slow {speed.what}, below {speed.share:.0%} "
                    f"of the others. {speed.remedy}",
                    f"{speed.shown(speed.value)}; {_others_text(others, speed.shown)}",
                )


def _speeds(node: str, measured: MeasuredNode) -> Iterator[_Speed]:
    figures = measured.figures
    for product in figures.products:
        yield _Speed(
            node,
            f"product {product.kind}",
            f"matrix products ({product.precision}) on its {product.device}",
            "Look for other processes, throttling and a power cap",
            product.flops_per_second,
            flops_text,
        )
    if figures.memory_bytes_per_second is not None:
        kinds = " ".join(sorted({product.kind for product in figures.products}))
        yield _Speed(
            node,
            f"memory {kinds}",
            "memory",
            "Look for other processes, and for missing memory modules",
            figures.memory_bytes_per_second,
            speed_text,
        )
    for name, storage in figures.storage.items():
        if storage.bytes_per_second is not None:
            yield _Speed(
                node,
                f"storage {name}",
                f"storage of the {name}",
                "Look for a failing disk or another process that writes",
                storage.bytes_per_second,
                speed_text,
                share=LEAST_STORAGE_SHARE,
                sufficient=SUFFICIENT_STORAGE,
            )
    if measured.link_bytes_per_second is not None:
        yield _Speed(
            node,
            "network",
            "links to its neighbours",
            "Look for a link with a lower speed, errors of the interface, or another interface "
            "than the others use",
            measured.link_bytes_per_second,
            speed_text,
        )


def _others_text(others: Collection[float], shown: Callable[[float], str]) -> str:
    median = statistics.median(others)
    if len(others) == 1:
        return f"the other: {shown(median)}"
    if len(others) <= MAX_LISTED:
        return f"the others: {', '.join(map(shown, sorted(others)))}"
    return (
        f"the {len(others)} others: {shown(min(others))} to {shown(max(others))}, median "
        f"{shown(median)}"
    )


def _clocks(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
    median = _offset_from_driver(nodes)
    name = "the driver's clock" if median is None else "the median of the nodes"
    for node, measured in nodes.items():
        clock = measured.clock
        if clock is None:
            continue
        offset = clock.seconds - (median or 0.0)
        certain = abs(offset) - clock.error_seconds
        if certain <= CLOCK_WARNING_SECONDS:
            continue
        yield NodeVerdict(
            node,
            f"The clock of node {measured.name} is wrong. Times in records and deadlines of "
            "drained nodes depend on it. Synchronize the clocks, for example with chrony",
            f"{offset:+.2f} s from {name}, ± {clock.error_seconds:.3f}; at most "
            f"{CLOCK_LIMIT_SECONDS:g} s allowed",
            fails=certain > CLOCK_LIMIT_SECONDS,
        )


def driver_clock_warning(nodes: Mapping[str, MeasuredNode]) -> str | None:
    """Return a warning if the driver's clock differs from those of most nodes, or None."""
    median = _offset_from_driver(nodes)
    if median is None:
        return None
    asked = sum(measured.clock is not None for measured in nodes.values())
    return (
        f"the driver's clock is {abs(median):.2f} s {'behind' if median > 0 else 'ahead of'} the "
        f"median of {counted(asked, 'node')}. Synchronize the clocks, for example with chrony"
    )


def _offset_from_driver(nodes: Mapping[str, MeasuredNode]) -> float | None:
    """Return the median of the nodes' offsets if the driver's clock is the wrong one, or None.

    It is the wrong one if it differs from the median of at least three nodes.
    """
    offsets = [measured.clock.seconds for measured in nodes.values() if measured.clock]
    if len(offsets) < 3 or abs(median := statistics.median(offsets)) <= CLOCK_WARNING_SECONDS:
        return None
    return median


def _space(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
    for node, measured in nodes.items():
        figures = measured.figures
        spaces = [
            ("memory", figures.free_memory_bytes, LEAST_FREE_MEMORY),
            ("/dev/shm", figures.free_shared_memory_bytes, LEAST_FREE_SHARED_MEMORY),
            *(
                (f"storage of the {name}", storage.free_bytes, LEAST_FREE_STORAGE)
                for name, storage in figures.storage.items()
            ),
        ]
        for name, free, least in spaces:
            if free is not None and free < least:
                yield NodeVerdict(
                    node,
                    f"Node {measured.name} has too little free {name} for a rank. Free some, or "
                    "end other processes",
                    f"{bytes_text(free)} free, at least {bytes_text(least)} needed",
                )
        for name, storage in figures.storage.items():
            if storage.problem is not None:
                yield NodeVerdict(
                    node,
                    f"Node {measured.name} cannot write to the storage of the {name}. Check its "
                    "permissions and mount",
                    storage.problem,
                )


def _gpus(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
    for node, measured in nodes.items():
        for gpu in measured.figures.gpus:
            name = f"Node {measured.name} reports"
            if gpu.uncorrected_errors or gpu.failed_remapping:
                errors = counted(gpu.uncorrected_errors or 0, "uncorrected ECC error")
                failed = ", a memory row could not be replaced" if gpu.failed_remapping else ""
                yield NodeVerdict(
                    node,
                    f"{name} memory errors of its {gpu.device}. Reset the GPU or restart the node; "
                    "if errors return, replace the GPU",
                    f"{errors} since the driver was loaded{failed}",
                )
            if gpu.xid_errors:
                yield NodeVerdict(
                    node,
                    f"{name} errors of its {gpu.device}. See NVIDIA's list of XID errors",
                    f"during the check: XID {join_items(sorted(set(gpu.xid_errors)))}",
                )
            if gpu.throttling:
                yield NodeVerdict(
                    node,
                    f"{name} that its {gpu.device} is throttled. Check cooling and power supply",
                    f"reasons: {join_items(gpu.throttling)}",
                    fails=False,
                )


def flops_text(value: float) -> str:
    """Format a speed of products: 96.1 GFLOP/s."""
    return f"{value / 1e9:,.3g} GFLOP/s" if value < 1e12 else f"{value / 1e12:,.4g} TFLOP/s"


def speed_text(value: float) -> str:
    """Format bytes per second: 3.4 GB/s, 120 MB/s."""
    return f"{bytes_text(value)}/s"


def bytes_text(value: float) -> str:
    """Format bytes: 3.4 GB, 120 MB."""
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.3g} MB"


def storage_text(storage: StorageFigures) -> str:
    """Format the speed of a storage, or the reason why it has none."""
    if storage.bytes_per_second is None:
        return storage.problem or "not measured"
    return speed_text(storage.bytes_per_second)
