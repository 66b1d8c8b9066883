"""A real Ray head, started with `ray start`, for all tests that need a cluster."""

import itertools
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from support.cluster.processes import command_of, is_alive
from support.ports import free_port

RAY = Path(sys.executable).parent / "ray"
STARTS = 3
START_SECONDS = 200.0  # for one of them: with a load of 30 it takes a minute


class RayHead:
    """A head on free ports with a separate token; `stop` ends all of its processes.

    Attributes:
        folder: of its sessions and their logs.
        address: HOST:PORT to join it.
        dashboard: URL to which jobs are submitted.
        token: what a client must show.
    """

    def __init__(
        self,
        folder: Path,
        cpus: int,
        environment: Mapping[str, str] = {},
        options: Sequence[str] = (),
        dashboard_port: int | None = None,
    ) -> None:
        """environment: of all processes, in addition to this process's environment and the token.

        RAY_AUTH_TOKEN there replaces the new token.
        options: further ones of `ray start`; those of the head replace them.
        dashboard_port: None for a free one.
        """
        port, dashboard_port = free_port(), dashboard_port or free_port()
        self.folder = folder
        self._output = folder / "ray-start.txt"
        self.address = f"127.0.0.1:{port}"
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        self.token = environment.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
        self._environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            # Ray's default is 15, with which ranks starve where others compute.
            "RAY_worker_niceness": "0",
            # Ray takes a node for dead after five answers that took 10 s each. A raylet that ends
            # for that exits with 0, which `ray start` does not report.
            "RAY_health_check_timeout_ms": "60000",
            **environment,
        }
        self._numbers = itertools.count(1)
        self._options = [
            *options,
            "--head",
            f"--port={port}",
            f"--dashboard-port={dashboard_port}",
            "--dashboard-host=127.0.0.1",
            f"--ray-client-server-port={free_port()}",
            f"--num-cpus={cpus}",
            "--include-log-monitor=false",  # prints for drivers; ours print by themselves
            # Unix sockets are below: their paths may have 107 bytes. Ray opens this folder to
            # everybody, but not the one around it.
            f"--temp-dir={folder / 'r'}",
        ]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = _started(self._answers, self._options, self._environment, self._output)
        servers = (*_processes(process, "gcs_server"), *_processes(process, "raylet"))
        self._vital = [process.pid, *(server.pid for server in servers)]
        return process

    def _answers(self) -> bool:
        return self.ask("jobs/") is not None

    @property
    def process_id(self) -> int:
        """Return the id of the process whose children are the head's."""
        return self._process.pid

    def stop(self) -> None:
        _kill(self._process)

    def start_again_if_dead(self) -> str:
        """Start it at the same addresses if it or its node's raylet has died.

        Returns the output of `ray start`, which names processes with their exit codes and shows
        their logs; empty if all of them live.
        """
        if all(is_alive(process_id) for process_id in self._vital):
            return ""
        with suppress(subprocess.TimeoutExpired):  # it looks once a second
            self._process.wait(timeout=5)
        self.stop()
        output = self._output.read_text(errors="replace")
        self._process = self._start()
        return output

    @contextmanager
    def away(self) -> Iterator[None]:
        """Make the head answer no request: the process that is asked about nodes is stopped."""
        (server,) = _processes(self._process, "gcs_server")
        server.suspend()
        try:
            yield
        finally:
            server.resume()

    def actors(self, name: str = r"(RankActor|NodeAgent|DataWorker)") -> list[psutil.Process]:
        """The processes on the head's node of our actors, or of those of one class."""
        processes = psutil.Process(self.process_id).children(recursive=True)
        return [p for p in processes if re.match(f"ray::{name}", " ".join(command_of(p)))]

    def add_node(self, cpus: int, *options: str, environment: Mapping[str, str] = {}) -> "RayNode":
        """Start another node of the cluster, on this machine; return once the cluster has it.

        It unpacks the code of jobs into a directory of its session, as it would on another machine:
        if it is killed meanwhile, the others do not find half of a package there.

        options: of `ray start`.
        environment: of the node's processes, in addition to that of the head.
        """
        before = self._alive_nodes()
        directory = self.folder / f"n{next(self._numbers)}"
        return RayNode(
            _started(
                lambda: self._alive_nodes() - before,
                [
                    f"--address={self.address}",
                    f"--num-cpus={cpus}",
                    f"--temp-dir={directory}",
                    *options,
                ],
                {**self._environment, **environment},
                directory.with_suffix(".txt"),
            )
        )

    def is_alone(self) -> bool:
        """Return whether the head knows that killed nodes are gone, which takes it a while."""
        return len(self._alive_nodes()) == 1

    def _alive_nodes(self) -> set[str]:
        """Ids of all nodes, that of the head included."""
        nodes = self.ask("v0/nodes")["data"]["result"]["result"]
        return {node["node_id"] for node in nodes if node["state"] == "ALIVE"}

    def ask(self, question: str) -> Any:
        request = urllib.request.Request(
            f"{self.dashboard}/api/{question}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


class RayNode:
    """A node that has joined the head."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def process_id(self) -> int:
        """Return the id of the process whose children are the node's."""
        return self._process.pid

    def kill(self) -> None:
        """Kill all processes as if the machine had lost power; objects are gone at once."""
        _kill(self._process)

    def kill_raylet(self) -> None:
        """Kill only the process that is the node; its actors' processes die of that later."""
        (raylet,) = _processes(self._process, "raylet")
        raylet.kill()

    def titles(self) -> list[str]:
        """Return the titles of the node's processes: an actor's contains its current method."""
        processes = psutil.Process(self.process_id).children(recursive=True)
        return [" ".join(command_of(process)) for process in processes]


def _processes(parent: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    return [p for p in psutil.Process(parent.pid).children(recursive=True) if p.name() == name]


def _started(
    runs: Callable[[], object], options: list[str], environment: Mapping[str, str], output: Path
) -> subprocess.Popen[bytes]:
    """`ray start` with these options, once it runs; the file gets its output.

    Ray ends a node one of whose agents takes more than some 15 s to start (2.60.0), which happens
    on a busy machine: it is started again, as it is if it does not answer within `START_SECONDS`.
    So it runs once its agent listens.

    Raises:
        AssertionError: no start has succeeded. The message has the output of the last one.
    """
    for _ in range(STARTS):
        agent = free_port()
        deadline = time.monotonic() + START_SECONDS
        with output.open("wb") as file:
            process = subprocess.Popen(
                [
                    RAY,
                    "start",
                    "--block",
                    "--node-ip-address=127.0.0.1",
                    # Its default port may be held by any other Ray on this machine.
                    f"--dashboard-agent-listen-port={agent}",
                    f"--object-store-memory={200 * 2**20}",
                    "--disable-usage-stats",
                    *options,
                ],
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    said = output.read_text(errors="replace")
                    with suppress(OSError, ValueError):  # the dashboard does not answer yet
                        if "Ray runtime started" in said and runs() and _listens(process, agent):
                            return process
                    time.sleep(0.2)
            except BaseException:  # such as pytest's, when a test has its time
                _kill(process)
                raise
            _kill(process)  # what it has started may live on
    raise AssertionError(f"`ray start {' '.join(options)}` has failed {STARTS} times: {said}")


def _listens(parent: subprocess.Popen[bytes], port: int) -> bool:
    """Return whether a port's listener is a child of a process, and not an unrelated process."""
    for process in psutil.Process(parent.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("tcp")
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
                return True
    return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # SIGTERM takes Ray twenty seconds
    process.wait()
