"""Text of a node check: one line as a summary, and a table with a row for each node."""

from collections.abc import Callable, Mapping

from cluster.node_check.checks import NodeCheckReport
from cluster.node_check.figures import MeasuredNode
from cluster.node_check.verdicts import bytes_text, flops_text, speed_text, storage_text
from foundation.wording import counted

UNKNOWN = "–"
_Column = Callable[[MeasuredNode], str | None]


def summary(report: NodeCheckReport) -> str:
    """Return the summary of a check, such as "quick check of 3 nodes in 1.2 s: 1 unfit"."""
    failing = {verdict.node for verdict in report.verdicts if verdict.fails}
    warned = {verdict.node for verdict in report.verdicts} - failing
    groups = {"unfit": failing, "with a warning": warned}
    parts = [f"{len(nodes)} {what}" for what, nodes in groups.items() if nodes]
    rate = report.all_reduce_bytes_per_second
    network = "" if rate is None else f"; all-reduce at {speed_text(rate)}"
    return (
        f"{report.level} check of {counted(len(report.checked), 'node')} in {report.seconds:.1f} "
        f"s: {', '.join(parts) or 'no problem'}{network}"
    )


def table(report: NodeCheckReport) -> list[str]:
    """Return a header and a line for each node of the check, without empty columns."""
    nodes = {node: report.nodes[node] for node in report.checked}
    columns = [
        column
        for title, value in _columns(nodes).items()
        if (column := [title, *(value(node) or UNKNOWN for node in nodes.values())])
        and set(column[1:]) != {UNKNOWN}
    ]
    failing = {verdict.node for verdict in report.verdicts if verdict.fails}
    verdicts = ["result", *("unfit" if node in failing else "fit" for node in nodes)]
    names = ["node", *(measured.name for measured in nodes.values())]
    widths = [max(map(len, column)) for column in (names, *columns)]
    lines = []
    for name, *values in zip(names, *columns, verdicts, strict=True):
        cells = [name.ljust(widths[0])]
        cells += [value.rjust(width) for value, width in zip(values, widths[1:], strict=False)]
        lines.append("  ".join([*cells, values[-1]]).rstrip())
    return lines


def _columns(nodes: Mapping[str, MeasuredNode]) -> dict[str, _Column]:
    """Return the columns by title, each a function of a node."""
    folders = dict.fromkeys(name for node in nodes.values() for name in node.figures.storage)
    precisions = dict.fromkeys(
        product.precision for node in nodes.values() for product in node.figures.products
    )
    return {
        **{precision: _product(precision) for precision in precisions},
        "memory": lambda node: _text(node.figures.memory_bytes_per_second, speed_text),
        **{folder: _storage(folder) for folder in folders},
        "network": lambda node: _text(node.link_bytes_per_second, speed_text),
        "clock": lambda node: f"{node.clock.seconds:+.3f} s" if node.clock else None,
        "free memory": lambda node: _text(node.figures.free_memory_bytes, bytes_text),
        "/dev/shm": lambda node: _text(node.figures.free_shared_memory_bytes, bytes_text),
        "free disk": lambda node: _text(
            min((s.free_bytes for s in node.figures.storage.values()), default=None), bytes_text
        ),
    }


def _product(precision: str) -> _Column:
    """Return the column with the speed of the slowest device."""

    def column(node: MeasuredNode) -> str | None:
        speeds = [p.flops_per_second for p in node.figures.products if p.precision == precision]
        return _text(min(speeds, default=None), flops_text)

    return column


def _storage(folder: str) -> _Column:
    def column(node: MeasuredNode) -> str | None:
        storage = node.figures.storage.get(folder)
        return storage_text(storage) if storage else None

    return column


def _text(value: float | None, shown: Callable[[float], str]) -> str | None:
    return None if value is None else shown(value)
