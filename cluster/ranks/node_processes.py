"""Processes on the nodes: their identity, their immediate end, and their stacks.

Node agents kill processes immediately, whereas Ray takes five seconds for a stopped process.
"""

import os
import secrets
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import ray

from cluster.health.stacks import COLLECT_SECONDS
from cluster.ranks.agent_client import NodeAgents, wait
from cluster.ray.embedded import embedded_ray_is_lost
from run_store.process_identity import start_tick

# Time for a killed process to end. With a CUDA context, freeing memory takes a second or two.
DEATH_SECONDS = 30.0


@dataclass(frozen=True)
class ProcessName:
    """Identity of a process on a node, unique while the machine runs.

    A process id alone may be reused.
    """

    node: str
    id: int
    started: int | None

    @classmethod
    def of_this_process(cls) -> "ProcessName":
        node: str = ray.get_runtime_context().get_node_id()
        return cls(node, os.getpid(), start_tick(os.getpid()))

    def is_alive(self) -> bool:
        """Return whether the process is alive; must be called on its node."""
        return self.started is not None and start_tick(self.id) == self.started

    def new_rendezvous(self) -> Path:
        """Return a new path for a rendezvous file of the node's ranks, without creating it."""
        return Path(tempfile.gettempdir()) / f"{self._rendezvous}-{secrets.token_hex(8)}"

    def rendezvous_files(self) -> list[Path]:
        """Return the rendezvous files that exist."""
        return list(Path(tempfile.gettempdir()).glob(f"{self._rendezvous}-*"))

    @property
    def _rendezvous(self) -> str:
        return f"transloom-rendezvous-{self.id}-{self.started}"


def kill_processes(agents: NodeAgents, processes: Iterable[ProcessName]) -> None:
    """Kill processes on all nodes, and wait until they are gone.

    Nodes whose agent has already failed to answer are not awaited. If an embedded Ray is lost, its
    agents are lost, too. All processes are then on this machine, and this process kills them
    itself.
    """
    if embedded_ray_is_lost():
        kill_here(mine := list(processes))
        await_deaths_here(mine)
        return
    of_node = _by_node(processes)
    killed = agents.ask(of_node, lambda agent, mine: agent.kill.remote(mine))
    gone = agents.ask(of_node, lambda agent, mine: agent.await_deaths.remote(mine))
    agents.expect(killed, gone)
    wait([gone[node] for node in of_node if node not in agents.silent], DEATH_SECONDS)


def collect_stacks(agents: NodeAgents, processes: Iterable[ProcessName]) -> dict[ProcessName, str]:
    """Collect the stacks of processes from the nodes that answer in time."""
    of_node = _by_node(processes)
    answers = agents.ask(of_node, lambda agent, mine: agent.stacks.remote(mine))
    return {
        process: text
        for node, texts in agents.collect(answers, COLLECT_SECONDS).items()
        for process, text in zip(of_node[node], texts, strict=True)
    }


def _by_node(processes: Iterable[ProcessName]) -> dict[str, list[ProcessName]]:
    of_node: dict[str, list[ProcessName]] = {}
    for process in processes:
        of_node.setdefault(process.node, []).append(process)
    return of_node


def kill_here(processes: list[ProcessName]) -> None:
    """Kill processes of this node without waiting for their end."""
    for process in processes:
        if process.is_alive():
            with suppress(ProcessLookupError):  # the process has ended in the meantime
                os.kill(process.id, signal.SIGKILL)


def dead_processes_here(processes: list[ProcessName], seconds: float) -> list[ProcessName]:
    """Wait until one of the processes ends, or for `seconds`; return those that have ended.

    A *pidfd* is a descriptor of a process that becomes readable when the process ends.

    Raises:
        OSError: the kernel has no pidfds, or this process has too many open files.
    """
    with ExitStack() as descriptors:
        poll = select.poll()
        for process in processes:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(process.id)
                descriptors.callback(os.close, descriptor)
                poll.register(descriptor, select.POLLIN)
        # A process may have ended before it had a descriptor, and its id may be used again.
        if dead := [process for process in processes if not process.is_alive()]:
            return dead
        poll.poll(1000 * seconds)
    return [process for process in processes if not process.is_alive()]


def await_deaths_here(
    processes: list[ProcessName], meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Wait until processes are gone, at most `DEATH_SECONDS`; remove their rendezvous files.

    Args:
        meanwhile: is called repeatedly during the wait.
    """
    deadline = time.monotonic() + DEATH_SECONDS
    while any(map(ProcessName.is_alive, processes)) and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.01)
    for process in processes:
        for file in process.rendezvous_files():
            file.unlink(missing_ok=True)
