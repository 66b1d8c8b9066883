"""Report of a node check: as JSON, as a line, and as a table with a row for each node."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.node_check.figures import CheckLevel, MeasuredNode, StorageFigures
from cluster.node_check.verdicts import NodeVerdict
from foundation.wording import byte_count, counted

UNKNOWN = "–"


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
