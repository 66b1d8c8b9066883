"""Compare the figures of nodes, and decide which nodes fail: a pure function.

    bits       within a kind (model and torch build): the minority fails; without a majority, all do
    links      compared with the median of the other nodes
    the rest   limits that do not depend on other nodes: clock, free space, counters of GPUs

`docs/decisions/0104` justifies the thresholds.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.node_check.figures import CheckLevel, MeasuredNode, ProductFigures, StorageFigures
from foundation.wording import byte_count, counted, join_items

# A node's links are too slow if they reach less than this share of the other nodes' median.
LEAST_LINK_SHARE = 0.5
CLOCK_WARNING_SECONDS = 1.0
# As long as the margin before a drained node ends (`cluster.supervision.attempt_end`).
CLOCK_LIMIT_SECONDS = 5.0
LEAST_FREE_STORAGE = 100_000_000
NODE_CHECK_REMEDY = (
    ". Repair or replace the nodes, lower cluster.ranks, or train on all nodes regardless with "
    "cluster.node_check=off"
)
DEFECTIVE = "Test its memory and processor, or replace it"
NO_MAJORITY = (
    "There is no majority: test all nodes of the kind, or add one to find out which node is wrong"
)
DIGEST_CHARACTERS = 12
UNKNOWN = "–"


@dataclass(frozen=True)
class NodeVerdict:
    """A problem of one node.

    Attributes:
        node: the node's id.
        reason: the problem and the remedy, with the node's name, without a full stop.
        figures: the node's figure, and those of the other nodes or the limit.
        fails: whether no ranks may start on the node; otherwise the problem is a warning.
    """

    node: str
    reason: str
    figures: str
    fails: bool = True

    @property
    def text(self) -> str:
        return f"{self.reason} ({self.figures})"


def compare(nodes: Mapping[str, MeasuredNode]) -> list[NodeVerdict]:
    """Return the problems of nodes, in the order of the nodes; a node may have several.

    Args:
        nodes: all nodes of the run, by id.
    """
    checks = (_answers, _products, slow_links, _clocks, _disks, _gpus)
    found = [verdict for check in checks for verdict in check(nodes)]
    places = {node: place for place, node in enumerate(nodes)}
    return sorted(found, key=lambda verdict: places[verdict.node])


def _answers(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
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
            if product.repeatable:
                kinds.setdefault(product.kind, []).append((node, product))
                continue
            yield NodeVerdict(
                node,
                f"Node {measured.name} computes different bits when it repeats a matrix "
                f"product on its {product.device}. {DEFECTIVE}",
                f"{product.precision}, {product.kind_name}",
            )
    for members in kinds.values():
        yield from _minority(nodes, members)


def _minority(
    nodes: Mapping[str, MeasuredNode], members: Sequence[tuple[str, ProductFigures]]
) -> Iterator[NodeVerdict]:
    """Yield a verdict for each device whose digest differs from the majority of its kind."""
    counts = Counter(product.digest for _, product in members)
    ((digest, most),) = counts.most_common(1)
    majority = digest if most > len(members) / 2 else None
    for node, product in members:
        if product.digest == majority:
            continue
        others = counts - Counter([product.digest])
        digests = (f"{one[:DIGEST_CHARACTERS]} ({count} times)" for one, count in others.items())
        yield NodeVerdict(
            node,
            f"Node {nodes[node].name} computes other bits of the same matrix product on its "
            f"{product.device} than other devices of its kind. "
            f"{DEFECTIVE if majority else NO_MAJORITY}",
            f"{product.precision} digest {product.digest[:DIGEST_CHARACTERS]}, the "
            f"{counted(others.total(), 'other')} of kind {product.kind_name}: "
            f"{join_items(digests)}",
        )


def slow_links(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
    """Yield a verdict for each node whose fastest link is too slow compared with other nodes."""
    speeds = {
        node: measured.link_bytes_per_second
        for node, measured in nodes.items()
        if measured.link_bytes_per_second is not None
    }
    for node, speed in speeds.items():
        others = [other for name, other in speeds.items() if name != node]
        if others and speed < LEAST_LINK_SHARE * statistics.median(others):
            yield NodeVerdict(
                node,
                f"Node {nodes[node].name} has slow links to its neighbours, below "
                f"{LEAST_LINK_SHARE:.0%} of the median of the other nodes. Look for a slower link, "
                "errors of the interface, or an interface that the other nodes do not use",
                f"{byte_count(speed)}/s; the median of {counted(len(others), 'other')}: "
                f"{byte_count(statistics.median(others))}/s",
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
    return (
        f"the driver's clock is {abs(median):.2f} s {'behind' if median > 0 else 'ahead of'} the "
        "median of the nodes. Synchronize the clocks, for example with chrony"
    )


def _offset_from_driver(nodes: Mapping[str, MeasuredNode]) -> float | None:
    """Return the median clock offset of the nodes if the driver's clock is wrong, or None.

    The driver's clock is considered wrong if it differs from the median of at least three nodes.
    """
    offsets = [measured.clock.seconds for measured in nodes.values() if measured.clock]
    if len(offsets) < 3 or abs(median := statistics.median(offsets)) <= CLOCK_WARNING_SECONDS:
        return None
    return median


def _disks(nodes: Mapping[str, MeasuredNode]) -> Iterator[NodeVerdict]:
    for node, measured in nodes.items():
        for name, storage in measured.figures.storage.items():
            if storage.free_bytes < LEAST_FREE_STORAGE:
                yield NodeVerdict(
                    node,
                    f"Node {measured.name} has too little free storage of the {name} for a rank. "
                    "Free some, or end other processes",
                    f"{byte_count(storage.free_bytes)} free, at least "
                    f"{byte_count(LEAST_FREE_STORAGE)} needed",
                )
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


@dataclass(frozen=True)
class NodeCheckReport:
    """Result of a check.

    Attributes:
        nodes: all nodes that have been checked so far, by id.
        checked: ids of the nodes of this check.
        verdicts: problems of nodes that this check has found.
        seconds: duration, without the start of the processes.
        warnings: problems that no single node has.
    """

    level: CheckLevel
    nodes: Mapping[str, MeasuredNode]
    checked: tuple[str, ...] = ()
    verdicts: tuple[NodeVerdict, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def failing(self) -> set[str]:
        """The ids of the nodes on which no ranks may start."""
        return {verdict.node for verdict in self.verdicts if verdict.fails}

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            "nodes": [
                {
                    **asdict(self.nodes[node]),
                    "fit": node not in self.failing,
                    "problems": [v.text for v in self.verdicts if v.node == node],
                }
                for node in self.checked
            ],
        }

    def summary(self) -> str:
        """Return the summary of the check, such as "quick check of 3 nodes in 1.2 s: 1 unfit"."""
        warned = {verdict.node for verdict in self.verdicts} - self.failing
        groups = {"unfit": self.failing, "with a warning": warned}
        parts = [f"{len(nodes)} {what}" for what, nodes in groups.items() if nodes]
        return (
            f"{self.level} check of {counted(len(self.checked), 'node')} in {self.seconds:.1f} s: "
            f"{', '.join(parts) or 'no problem'}"
        )

    def table(self) -> list[str]:
        """Return the lines of a table; columns without values are left out."""
        nodes = [self.nodes[node] for node in self.checked]
        columns = {
            "node": [node.name for node in nodes],
            "free disk": [_free_text(node.figures.storage) for node in nodes],
            "network": [_speed_text(node.link_bytes_per_second) for node in nodes],
            "clock": [f"{node.clock.seconds:+.3f} s" if node.clock else UNKNOWN for node in nodes],
            "result": ["unfit" if node in self.failing else "fit" for node in self.checked],
        }
        shown = [[title, *cells] for title, cells in columns.items() if {*cells} != {UNKNOWN}]
        widths = [max(map(len, column)) for column in shown]
        return [
            "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])])
            for name, *cells in zip(*shown, strict=True)
        ]


def _free_text(storage: Mapping[str, StorageFigures]) -> str:
    free = [figures.free_bytes for figures in storage.values()]
    return byte_count(min(free)) if free else UNKNOWN


def _speed_text(bytes_per_second: float | None) -> str:
    return UNKNOWN if bytes_per_second is None else f"{byte_count(bytes_per_second)}/s"
