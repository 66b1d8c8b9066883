"""Metrics of a run for monitoring systems, by name, from the run's folder alone.

The metrics have the same names in the text of `transloom metrics` and, with the prefix `ray_`, at
Ray's metrics endpoint; the rules in deploy/prometheus use these names. All values are current, and
unknown values are left out.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from foundation.untrusted_text import visible_line
from trainer.checkpoints.format import HEADER, step_of
from trainer.record.node_usage import NodeLine, newest_usage
from trainer.record.record_end import RecordEnd
from trainer.record.run_snapshot import RunSnapshot
from trainer.record.run_status import State, run_status_from
from trainer.runs.folder import RunFolder

# Number of bytes to read from the end of a metrics file. They include its newest steps, even after
# a validation with long samples.
RECORD_BYTES = 2**17
# Maximum age of a node's newest sample. If the newest sample is older, the node has left the run.
SAMPLE_SECONDS = 600.0
MAX_SLOW_RANKS = 8  # as many as the trainer writes into a line
LARGEST = 1e300  # a forged record may have numbers that no float represents

SLOW_RANK_FACTOR = "transloom_run_slow_rank_factor"
RUN_METRICS = {
    "transloom_run_state": "1 for the current state of the run, 0 for the others",
    "transloom_run_step": "the last recorded step",
    "transloom_run_max_steps": "number of steps to train, trainer.max_steps",
    "transloom_run_step_age_seconds": "during training, time since the last recorded step or, if "
    "later, since the start",
    "transloom_run_ranks": "number of ranks of the last start",
    "transloom_run_target_tokens_per_second": "target tokens per second of all ranks, in recent "
    "steps",
    "transloom_run_model_flops_per_second": "model FLOPs per second of all ranks, in recent steps",
    "transloom_run_mfu_ratio": "model FLOPs per second as a share of the GPUs' peak, in recent "
    "steps",
    "transloom_run_loss": "training loss of the last applied step, in nats per target token, with "
    "label smoothing",
    "transloom_run_nll": "training loss of the last applied step, in nats per target token, "
    "without label smoothing",
    "transloom_run_data_stall_ratio": "share of recent time in which ranks waited for data",
    "transloom_run_rank_wait_ratio": "share of recent time in which ranks waited for each other; "
    "mean over the ranks",
    SLOW_RANK_FACTOR: "during training, time of a slow rank as a multiple of the "
    "median of the others; cause is compute or data",
    "transloom_run_checkpoint_stall_ratio": "share of recent time in which a checkpoint stalled "
    "training",
    "transloom_run_restarts": "number of starts of the ranks after the first start",
    "transloom_run_lost_steps": "number of recorded steps that had to be trained again",
    "transloom_run_goodput_ratio": "share of the wall time spent in steps that counted",
    "transloom_run_wall_seconds": "time for which a driver owned the run, up to the last step",
    "transloom_run_counted_seconds": "duration of all applied steps, without repetitions",
    "transloom_run_skipped_steps": "number of steps that were not applied",
    "transloom_run_skipped_spikes": "number of skipped steps whose loss or gradient norm spiked; "
    "the others were not finite",
    "transloom_run_skipped_steps_in_a_row": "number of skipped steps since the last applied step",
    "transloom_run_corruption_step": "the last step in which ranks computed different bits for the "
    "same data",
    "transloom_run_checkpoint_step": "step of the newest checkpoint",
    "transloom_run_checkpoint_age_seconds": "time since the newest checkpoint was written",
    "transloom_run_problems": "number of files in the run folder that cannot be read",
}
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
    snapshot = RunSnapshot(RunFolder(path), RECORD_BYTES)
    run_status = run_status_from(snapshot)
    name = visible_line(run_status.name)
    states = [
        MetricValue("transloom_run_state", {"run": name, "state": state}, state == run_status.state)
        for state in get_args(State)
    ]
    known = {
        "step": run_status.step,
        "max_steps": run_status.max_steps,
        "step_age_seconds": run_status.step_age_seconds,
        "ranks": run_status.ranks,
        "target_tokens_per_second": run_status.tokens_per_second,
        "problems": len(run_status.problems),
        **_of_record(snapshot.record),
        **_of_checkpoint(snapshot),
    }
    slow_ranks = [
        MetricValue(
            SLOW_RANK_FACTOR,
            {
                "run": name,
                "rank": str(slow.rank),
                "node": visible_line(slow.node or ""),
                "cause": slow.cause,
            },
            slow.factor,
        )
        for slow in run_status.slow_ranks[:MAX_SLOW_RANKS]
        if abs(slow.factor) <= LARGEST
    ]
    return [
        *states,
        *(
            MetricValue(f"transloom_run_{metric}", {"run": name}, float(value))
            for metric, value in known.items()
            if value is not None and abs(value) <= LARGEST
        ),
        *slow_ranks,
    ]


def node_values(path: Path) -> list[MetricValue]:
    """Return the values of `NODE_METRICS` for those nodes of a run that have a recent sample."""
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


def _of_record(record: RecordEnd) -> dict[str, float | None]:
    last = record.last
    restarts = [line.restarts for line in (last, record.resumed) if line]
    lost_steps = [line.lost_steps for line in (last, record.resumed) if line]
    return {
        "loss": last.loss if last else None,
        "nll": last.nll if last else None,
        "model_flops_per_second": record.flops_per_second,
        "mfu_ratio": record.mfu,
        "data_stall_ratio": record.share_of_time("data_stall_seconds"),
        "rank_wait_ratio": record.share_of_time("wait_seconds"),
        "checkpoint_stall_ratio": record.share_of_time("checkpoint_stall_seconds"),
        "restarts": max((n for n in restarts if n is not None), default=None),
        "lost_steps": max((n for n in lost_steps if n is not None), default=None),
        "goodput_ratio": last.goodput if last else None,
        "wall_seconds": last.wall_seconds if last else None,
        "counted_seconds": last.counted_seconds if last else None,
        "corruption_step": record.corruption.checked_step if record.corruption else None,
        "skipped_steps_in_a_row": record.skipped_in_a_row if record.step else None,
    }


def _of_checkpoint(snapshot: RunSnapshot) -> dict[str, float | None]:
    sources = [source for source in (snapshot.header, snapshot.record.skipped) if source]
    return {
        "skipped_steps": max((source.skipped_steps for source in sources), default=0),
        "skipped_spikes": max((source.skipped_spikes for source in sources), default=0),
        "checkpoint_step": step_of(snapshot.newest) if snapshot.newest else None,
        "checkpoint_age_seconds": _age(snapshot.newest / HEADER) if snapshot.newest else None,
    }


def _age(path: Path) -> float | None:
    """Return the time since a file was written, in seconds, or None if it is unknown."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None


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
