"""Measure this node's utilization, within the limits of the run's processes.

Cores and memory are those of the machine. If a container or Slurm job has lower limits, these
limits are used instead (`cluster.health.cgroup`).
"""

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import ray
from ray.exceptions import RayError

from cluster.health.cgroup import CoreLimit, core_limit, memory_limit
from cluster.ranks.agent_client import NodeAgents
from run_store.record.node_usage import MAX_GPUS, GpuUsage, Usage

# Device file of NVIDIA's driver. If it does not exist, no NVIDIA library is loaded.
NVIDIA_CONTROL = Path("/dev/nvidiactl")
# Seconds over which the first sample measures the cores. Later samples cover the time since the
# previous sample.
FIRST_SECONDS = 0.5


class NodeMeter:
    """Meter of the utilization between samples."""

    def __init__(self) -> None:
        self._cpus: CoreLimit | None = None
        self._before = (0.0, 0.0)

    def sample(self) -> Usage:
        """Return the current utilization; core utilization is the average since the last sample."""
        used, total = memory_of_node()
        return Usage(
            cpu_percent=self._cpu_percent(),
            memory_used_bytes=used,
            memory_bytes=total,
            gpus=gpus_of_node()[:MAX_GPUS],
        )

    def _cpu_percent(self) -> float:
        if self._cpus is None:
            self._cpus = cpus_of_node()
            self._before = time.monotonic(), self._cpus.busy_seconds()
            time.sleep(FIRST_SECONDS)
        (before, busy_before), (now, busy) = (
            self._before,
            (time.monotonic(), self._cpus.busy_seconds()),
        )
        self._before = now, busy
        share = (busy - busy_before) / max(now - before, 1e-3) / self._cpus.cores
        return round(100 * min(max(share, 0.0), 1.0), 1)


class UsageRequests:
    """Non-blocking requests to the agents of nodes for their nodes' utilization."""

    def __init__(self, agents: NodeAgents) -> None:
        self._agents = agents
        self._pending: dict[str, Any] = {}  # answers by node

    def ask(self, nodes: Collection[str]) -> None:
        """Request utilization from the agents of these nodes, unless an answer is pending.

        This does not wait; `take` returns the answers that have arrived.
        """
        for node in nodes:
            if node in self._agents.by_node and node not in self._pending:
                self._pending[node] = self._agents.by_node[node].usage.remote()

    def take(self) -> dict[str, Usage]:
        """Return the utilizations that have arrived since the last call, by the nodes' names."""
        found = {}
        for node, answer in list(self._pending.items()):
            if not ray.wait([answer], timeout=0)[0]:
                continue
            del self._pending[node]
            with suppress(RayError):  # the agent is lost, or could not measure
                found[self._agents.names[node]] = ray.get(answer, timeout=0)
        return found


def cpus_of_node() -> CoreLimit:
    """Return the number of cores that this process may use, and a counter of their CPU time."""
    cores, limit = len(os.sched_getaffinity(0)), core_limit()
    if limit and limit.cores < cores:
        return limit
    return CoreLimit(cores, _busy_seconds_of_machine)


def memory_of_node() -> tuple[int, int]:
    """Return the used and the total memory, in bytes."""
    machine = psutil.virtual_memory()
    limit = memory_limit()
    if limit and limit.limit_bytes < machine.total:
        return limit.used_bytes, limit.limit_bytes
    return machine.total - machine.available, machine.total


def gpus_of_node(control: Path = NVIDIA_CONTROL) -> list[GpuUsage]:
    """Return all GPUs that NVIDIA's driver reports, or none if it does not answer."""
    if not control.exists():
        return []
    from cluster.ray.private import nvml  # bundled with Ray

    library = nvml()
    try:
        library.nvmlInit()
        try:
            return [_gpu(library, index) for index in range(library.nvmlDeviceGetCount())]
        finally:
            library.nvmlShutdown()
    except library.NVMLError:
        return []


def _gpu(library: Any, index: int) -> GpuUsage:
    device = library.nvmlDeviceGetHandleByIndex(index)
    memory = library.nvmlDeviceGetMemoryInfo(device)
    return GpuUsage(
        index=index,
        utilization_percent=library.nvmlDeviceGetUtilizationRates(device).gpu,
        memory_used_bytes=memory.used,
        memory_bytes=memory.total,
    )


def _busy_seconds_of_machine() -> float:
    """Return the CPU time since boot of the cores that this process may use, in seconds."""
    mine = os.sched_getaffinity(0)
    all_cores = psutil.cpu_times(percpu=True)
    cores = [times for number, times in enumerate(all_cores) if number in mine] or all_cores
    # `user` and `nice` include the time of guests.
    return sum(t.user + t.nice + t.system + t.irq + t.softirq + t.steal for t in cores)
