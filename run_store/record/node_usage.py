"""Utilization of the nodes of a run's ranks, in nodes.jsonl: each sample has one line per node.

::

    {"version": 1, "time": 1764000000.1, "step": 500, "node": "gpu-7", "cpu_percent": 31.5,
     "memory_used_bytes": 8000000000, "memory_bytes": 64000000000, "gpus": []}

The run's owner writes the file (`cluster.supervision.node_samples`), and nothing depends on it. A
line has about 170 bytes, and 110 more for each GPU. With a sample every 30 s, a node without GPUs
adds 0.5 MB a day, and a node with eight GPUs adds 3 MB a day. `newest_usage` reads only the end of
the file. `read_usage` reads lines from all parts of the file, but at most 2 MB.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import MAX_COUNT, Count, FileModel
from foundation.untrusted_text import visible_in_json
from foundation.wording import counted
from run_store.record.line_reader import ReadRange, ranges_of, readable_lines, whole_lines

END_BYTES = 2**16
WHOLE_BYTES = 2**21
MAX_POINTS = 1000
MAX_GPUS = 64
MAX_CHARACTERS = 255  # maximum length of a node's name

Percent = Annotated[float, Field(ge=0, le=100)]


class GpuUsage(FileModel):
    """Utilization of one GPU of a node by all processes, according to NVIDIA's driver."""

    index: Count
    utilization_percent: Percent
    memory_used_bytes: Count
    memory_bytes: Count


class Usage(FileModel):
    """Utilization of the resources of a node that the run may use.

    Attributes:
        cpu_percent: utilization of the cores that processes of the run may use, since the previous
            sample.
        memory_used_bytes: memory in use, excluding cached files, because the kernel evicts them
            when processes need memory.
        memory_bytes: memory of the machine, or of the container if the container has less.
        gpus: the GPUs of the node.
    """

    cpu_percent: Percent
    memory_used_bytes: Count
    memory_bytes: Count
    gpus: Annotated[list[GpuUsage], Field(max_length=MAX_GPUS)] = Field(default_factory=list)


class NodeLine(Usage):
    """Line of nodes.jsonl: a node's utilization at a time, and the last recorded step then."""

    version: Literal[1] = 1
    time: Annotated[float, Field(ge=0, le=MAX_COUNT)]
    step: Count
    node: Annotated[str, Field(max_length=MAX_CHARACTERS)]

    @classmethod
    def of(cls, usage: Usage, time: float, step: int, node: str) -> "NodeLine":
        name = node[:MAX_CHARACTERS]
        return cls(time=round(time, 3), step=step, node=name, **dict(usage))

    def to_json(self) -> str:
        return visible_in_json(json.dumps(self.model_dump(mode="json"), ensure_ascii=False))


@dataclass(frozen=True)
class NodeUsage:
    """Lines that were read from nodes.jsonl.

    Attributes:
        nodes: the lines of each node, oldest first.
        thinned: whether the file has readable lines that are not in `nodes`.
        bytes_read: the number of bytes that were read.
        problem: description of unreadable lines, or None.
    """

    nodes: dict[str, list[NodeLine]]
    thinned: bool = False
    bytes_read: int = 0
    problem: str | None = None


def append_usage(path: Path, lines: Iterable[NodeLine]) -> None:
    """Append lines to nodes.jsonl; only the run's owner may call it.

    Nothing depends on the lines, so lines that do not fit on a full disk are left out.
    """
    data = "".join(f"{line.to_json()}\n" for line in lines).encode()
    with suppress(OSError), path.open("ab", buffering=0) as file:
        size = file.seek(0, 2)
        if file.write(data) < len(data):
            file.truncate(size)


def newest_usage(path: Path) -> NodeUsage:
    """Return the newest line of each node from the end of the file; empty without a file.

    Raises:
        OSError: the file exists and cannot be read.
    """
    return _read(path, END_BYTES, lambda read, size: [_end(read, size)], points=1)


def read_usage(path: Path, points: int = MAX_POINTS) -> NodeUsage:
    """Return lines of each node from all parts of the file; empty without a file.

    Args:
        path: the file.
        points: the maximum number of lines per node.

    Raises:
        OSError: the file exists and cannot be read.
    """
    return _read(path, WHOLE_BYTES, lambda read, size: _parts(read, size, points), points)


def _read(
    path: Path, whole_bytes: int, parts_of: Callable[[ReadRange, int], list[bytes]], points: int
) -> NodeUsage:
    """Read the whole file if it has at most `whole_bytes` bytes, and otherwise parts of it.

    `parts_of` reads these parts, given a reader of ranges and the size of the file. `points` limits
    the number of lines per node.
    """
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            whole = size <= whole_bytes
            read = ranges_of(file)
            parts = [whole_lines(read, 0, size).content] if whole else parts_of(read, size)
    except FileNotFoundError:
        return NodeUsage({})
    nodes: dict[str, list[NodeLine]] = {}
    damaged = 0
    for part in parts:
        lines, unread = readable_lines(part, NodeLine.model_validate_json)
        damaged += unread
        # If only parts were read, take one line per node from each part.
        for line in lines if whole else {line.node: line for line in lines}.values():
            nodes.setdefault(line.node, []).append(line)
    kept = {node: _thinned(lines, points) for node, lines in nodes.items()}
    thinned = not whole or any(len(kept[node]) < len(nodes[node]) for node in nodes)
    return NodeUsage(kept, thinned, sum(map(len, parts)), _problem(path, damaged))


def _end(read: ReadRange, size: int) -> bytes:
    return whole_lines(read, size - END_BYTES, size).content


def _parts(read: ReadRange, size: int, points: int) -> list[bytes]:
    """Return parts of the file at even distances; the last part is the end of the file.

    Each part has a line of every node, unless there are hundreds of nodes.
    """
    end = _end(read, size)
    nodes = len({line.node for line in readable_lines(end, NodeLine.model_validate_json)[0]})
    length = len(end) // max(1, end.count(b"\n"))
    # A part has twice the length of a sample, because some lines may be longer, and the lines at
    # both ends of the part are torn.
    part = min(END_BYTES, 2 * (nodes + 1) * length) or END_BYTES
    count = max(2, min(points, WHOLE_BYTES // part))
    starts = [(size - part) * n // (count - 1) for n in range(count)]
    return [whole_lines(read, start, start + part).content for start in starts]


def _thinned(lines: list[NodeLine], points: int) -> list[NodeLine]:
    """Return at most `points` lines at even distances, including the last line."""
    stride = -(-len(lines) // points)
    return lines[::-1][::stride][::-1]


def _problem(path: Path, damaged: int) -> str | None:
    return f"{path} has {counted(damaged, 'line')} that cannot be read" if damaged else None
