"""Actors on the nodes of the ranks, one per node, for actions that need a process on the node.

An agent needs no resources and hardly any memory. Its methods only call the modules of their
subjects: `node_processes`, `node_folder`, `node_meter`, `node_mirror`, `node_memory`. The driver
asks all agents through `agent_client`. An agent also requests the layouts of windows once for all
ranks of its node (`cluster.data.node_layouts`).
"""

import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.data.node_layouts import NodeLayouts
from cluster.health.stacks import stacks_of
from cluster.health.watchdog import Watchdog
from cluster.packages import digest_of_sources
from cluster.ranks.node_memory import NodeMemory
from cluster.ranks.node_meter import NodeMeter
from cluster.ranks.node_mirror import NodeMirror
from cluster.ranks.node_processes import (
    ProcessName,
    await_deaths_here,
    dead_processes_here,
    kill_here,
)
from cluster.ray.folder_access import answer_probe
from run_store.checkpoints.memory_file import MemoryFile
from run_store.checkpoints.memory_folder import remove_stale_folders
from run_store.record.node_usage import Usage
from run_store.remote.files import Files


@ray.remote(
    num_cpus=0,
    max_restarts=-1,
    concurrency_groups={
        "watch": 2,  # two, because a request of a former group may still be pending
        "deaths": 1,
        "folder": 1,
        "stacks": 1,
        "usage": 1,
        "copies": 1,
        "memory": 4,
        "mirror": 1,
        "data": 1,
    },
)
class NodeAgent:
    """Actor that stays on a node for as long as the run's supervisor lives."""

    def __init__(self) -> None:
        self._memory = NodeMemory()
        self._watchdog = Watchdog(at_end=self._memory.close)
        self._raylet = os.getppid()
        self._meter = NodeMeter()
        self._layouts = NodeLayouts()
        remove_stale_folders()

    def heartbeat(self) -> None:
        """Record that the supervisor is alive."""
        self._watchdog.heartbeat()
        self._exit_with_raylet()

    def _exit_with_raylet(self) -> None:
        """Exit if the raylet has died.

        Otherwise the agent would survive for another second, and report a lost node as alive.
        """
        if os.getppid() != self._raylet:
            os.kill(os.getpid(), signal.SIGKILL)

    def kill(self, processes: list[ProcessName]) -> None:
        """Kill processes without waiting for their end; the prompt answer serves as a heartbeat."""
        kill_here(processes)
        self._exit_with_raylet()

    @ray.method(concurrency_group="watch")
    def dead_processes(self, processes: list[ProcessName], seconds: float) -> list[ProcessName]:
        """Run `dead_processes_here`."""
        return dead_processes_here(processes, seconds)

    @ray.method(concurrency_group="data")
    def layout(self, worker: Any, attempt: str, epoch: int, window: int) -> Any:
        """Run `NodeLayouts.reference`."""
        return self._layouts.reference(worker, attempt, epoch, window)

    @ray.method(concurrency_group="deaths")
    def await_deaths(self, processes: list[ProcessName]) -> None:
        """Wait until processes are gone, at most `DEATH_SECONDS`; remove their rendezvous files."""
        await_deaths_here(processes, self._watchdog.heartbeat)

    @ray.method(concurrency_group="stacks")
    def stacks(self, processes: list[ProcessName]) -> list[str]:
        """Return the stacks of each process; see `cluster.health.stacks`."""
        return stacks_of([process.id for process in processes])

    @ray.method(concurrency_group="usage")
    def usage(self) -> Usage:
        """Return the node's utilization since the last call."""
        return self._meter.sample()

    @ray.method(concurrency_group="folder")
    def check_shared_folder(self, folder: Path, left: str, answer: str) -> str | None:
        """Run `folder_access.answer_probe`."""
        return answer_probe(folder, left, answer)

    @ray.method(concurrency_group="mirror")
    def open_mirror(self, url: str, work: str, left: str, answer: str) -> str | None:
        """Prepare the node's copy of a run in an object store; see `NodeMirror.answer_probe`."""
        try:
            self._mirror = NodeMirror(url)
            self._mirror.answer_probe(work, left, answer)
        except OSError as error:
            return error.strerror or str(error)
        return None

    @ray.method(concurrency_group="mirror")
    def pull_run(self, work: str, *, with_files: bool) -> None:
        """Run `NodeMirror.pull`."""
        self._mirror.pull(work, with_files=with_files)

    @ray.method(concurrency_group="mirror")
    def upload_changes(
        self, names: Collection[str], owner: int, again: Collection[str]
    ) -> tuple[Files, dict[str, object]]:
        """Run `NodeMirror.upload_changes`."""
        return self._mirror.upload_changes(names, owner, again)

    @ray.method(concurrency_group="memory")
    def open_memory(self, name: str) -> str | None:
        """Run `NodeMemory.open`."""
        return self._memory.open(name)

    @ray.method(concurrency_group="memory")
    def read_memory(self, path: Path, start: int, stop: int) -> Any:
        """Run `NodeMemory.read`."""
        return self._memory.read(path, start, stop)

    @ray.method(concurrency_group="memory")
    def verify_memory(self, file: MemoryFile) -> None:
        """Run `NodeMemory.verify`."""
        self._memory.verify(file)

    @ray.method(concurrency_group="copies")
    def copy_memory(self, source: Any, file: MemoryFile) -> MemoryFile:
        """Run `NodeMemory.copy`."""
        return self._memory.copy(source, file)

    @ray.method(concurrency_group="copies")
    def keep_attempts(self, attempts: list[str]) -> None:
        """Run `NodeMemory.keep_attempts`."""
        self._memory.keep_attempts(attempts)

    @ray.method(concurrency_group="memory")
    def close_memory(self) -> None:
        """Run `NodeMemory.close`."""
        self._memory.close()

    @ray.method(concurrency_group="folder")
    def sources(self) -> str:
        """Return the digest of the transloom sources that ranks import on this node."""
        return digest_of_sources()


def start_agent(node: str) -> Any:
    """Start the agent of a node, given by its id."""
    return NodeAgent.options(  # type: ignore[attr-defined]
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
    ).remote()
