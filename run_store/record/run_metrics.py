"""Metrics of a run for monitoring systems, by name, from the run's folder alone.

The metrics have the same names in the text of `transloom metrics` and, with the prefix `ray_`, at
Ray's metrics endpoint; the rules in deploy/prometheus use these names. They derive from
`run_store.record.facts`. All values are current, and unknown values are left out.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from foundation.untrusted_text import visible_line
from run_store.folder import RunFolder
from run_store.record.facts import BY_NAME, FACTS
from run_store.record.node_usage import NodeLine, newest_usage
from run_store.record.run_status import run_status_of
from run_store.record.run_status_model import RunStatus, State
from run_store.record.vitals import SupervisorState

# Maximum age of a node's newest sample. If the newest sample is older, the node has left the run.
SAMPLE_SECONDS = 600.0
MAX_SLOW_RANKS = 8  # maximum number in a line, as written by the trainer
LARGEST = 1e300  # larger values are left out: in a forged record, floats may not represent them

_PREFIX = "transloom_run_"
# Facts whose values are names. Each name is a label of the metric.
_NAMES = {"state": get_args(State), "supervisor_state": get_args(SupervisorState)}
SLOW_RANK_FACTOR = f"{_PREFIX}{BY_NAME['slow_ranks'].metric}"
RUN_METRICS = {f"{_PREFIX}{fact.metric}": fact.meaning for fact in FACTS if fact.metric}
NODE_METRICS = {
    "transloom_node_cpu_ratio": "share of the node's cores in use",
    "transloom_node_memory_used_bytes": "memory in use on the node, without cached files",
    "transloom_node_memory_bytes": "memory that the run may use on the node",
    "transloom_node_gpu_utilization_ratio": "share of time in which the GPU computed",
    "transloom_node_gpu_memory_used_bytes": "memory in use on the GPU",
    "transloom_node_gpu_memory_bytes": "memory of the GPU",
}


class MetricValue(NamedTuple):
    """Value of a metric; its labels distinguish it from other values of the same name.

    The text of the labels is safe to display.
    """

    name: str
    labels: dict[str, str]
    value: float


def run_values(path: Path) -> list[MetricValue]:
    """Return the known values of `RUN_METRICS` for the run in a folder."""
    run_status = run_status_of(path)
    run = {"run": visible_line(run_status.name)}
    return [
        MetricValue(f"{_PREFIX}{fact.metric}", run | labels, float(value))
        for fact in FACTS
        if fact.metric
        for labels, value in _of_run(run_status, fact.name)
        if value is not None and abs(value) <= LARGEST
    ]


def _of_run(run_status: RunStatus, fact: str) -> Iterator[tuple[dict[str, str], float | None]]:
    """Yield the values of a fact, each with its labels."""
    if names := _NAMES.get(fact):
        yield from (({"state": name}, name == getattr(run_status, fact)) for name in names)
    elif fact == "slow_ranks":
        for slow in run_status.slow_ranks[:MAX_SLOW_RANKS]:
            place = {"rank": str(slow.rank), "node": visible_line(slow.node or "")}
            yield {**place, "cause": slow.cause}, slow.factor
    elif fact == "checkpoint_time":
        written = run_status.checkpoint_time
        yield {}, None if written is None else max(0.0, time.time() - written)
    else:
        yield {}, run_status.value(fact)


def node_values(path: Path) -> list[MetricValue]:
    """Return the values of `NODE_METRICS` for the nodes of a run that have a recent sample."""
    try:
        newest = newest_usage(RunFolder(path).nodes)
    except OSError:
        return []
    now, run = time.time(), visible_line(path.name)
    return [
        MetricValue(f"transloom_node_{metric}", {"run": run, **labels}, value)
        for (line,) in newest.nodes.values()
        if abs(now - line.time) <= SAMPLE_SECONDS
        for metric, labels, value in _of_node(line)
    ]


def _of_node(line: NodeLine) -> Iterator[tuple[str, dict[str, str], float]]:
    node = {"node": visible_line(line.node)}
    yield "cpu_ratio", node, line.cpu_percent / 100
    yield "memory_used_bytes", node, line.memory_used_bytes
    yield "memory_bytes", node, line.memory_bytes
    for gpu in line.gpus:
        labels = {**node, "gpu": str(gpu.index)}
        yield "gpu_utilization_ratio", labels, gpu.utilization_percent / 100
        yield "gpu_memory_used_bytes", labels, gpu.memory_used_bytes
        yield "gpu_memory_bytes", labels, gpu.memory_bytes
