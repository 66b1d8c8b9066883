"""Ray cluster whose processes stop at moments, and which can lose nodes or its head."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

from support.cluster.processes import command_of, marked
from support.cluster.ray_head import RayHead, RayNode
from support.faults.moments import Orders

HEAD_CPUS = 1
NODE_CPUS = 4


class FaultCluster:
    """Head whose CPUs the two ranks of a run share, and additional nodes on request."""

    def __init__(self, folder: Path, there: tuple[RayHead, Orders] | None = None) -> None:
        """there: a running head and its orders, which outlive the trials; None starts a head."""
        self._folder = folder
        self._heads = 0
        self.nodes: list[RayNode] = []
        self._is_shared = there is not None
        if there:
            self._head, self.orders = there
        else:
            self.orders = Orders(folder / "orders")
            self.start_head()

    @property
    def address(self) -> str:
        return self._head.address

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of a driver that joins the cluster."""
        return {**os.environ, **self.orders.environment, "RAY_AUTH_TOKEN": self._head.token}

    def start_head(self) -> None:
        self._heads += 1
        folder = self._folder / f"head-{self._heads}"
        folder.mkdir()
        self._head = RayHead(folder, HEAD_CPUS, self.orders.environment)

    def kill_head(self) -> None:
        """Kill all processes of the head at once, with its actors."""
        for process in _tree(self._head.process_id):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._head.stop()

    def add_node(self, *options: str) -> None:
        """Add a node, and wait until it has joined the cluster.

        options: options of `ray start`.
        """
        self.nodes.append(self._head.add_node(NODE_CPUS, *options))

    def remove_nodes(self) -> None:
        while self.nodes:
            self.nodes.pop().kill()

    def close(self) -> None:
        self.orders.clear()
        self.remove_nodes()
        if not self._is_shared:
            self.kill_head()

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of the cluster and of its drivers, with their descendants."""
        return marked("TRANSLOOM_FAULTS", str(self.orders.folder))

    def processes_of_runs(self) -> list[psutil.Process]:
        """Return the processes of runs: drivers, actors, and the processes that they started."""
        ray = [p for server in (self._head, *self.nodes) for p in _tree(server.process_id)]
        return [p for p in self.processes() if p not in ray or _is_actor(p)]

    def actors(self, name: str) -> list[psutil.Process]:
        """Return the processes of an actor's class."""
        return [p for p in self.processes() if _title(p).startswith(f"ray::{name}")]


def _tree(process_id: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(process_id)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_actor(process: psutil.Process) -> bool:
    title = _title(process)
    return title.startswith("ray::") and not title.startswith("ray::IDLE")


def _title(process: psutil.Process) -> str:
    return " ".join(command_of(process))
