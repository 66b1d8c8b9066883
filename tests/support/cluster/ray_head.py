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

from foundation.free_ports import free_port
from support.cluster.processes import command_of, is_alive, wait_until

RAY = Path(sys.executable).parent / "ray"
STARTS = 5
START_SECONDS = 200.0  # per start; at a system load of 30, a start takes a minute


class RayHead:
    """Head on free ports with a separate token; `stop` ends all of its processes.

    Attributes:
        folder: the folder of its sessions and their logs.
        address: HOST:PORT, to which nodes connect.
        dashboard: URL to which jobs are submitted.
        token: the token that clients must send.
    """

    def __init__(
        self,
        folder: Path,
        cpus: int,
        environment: Mapping[str, str] = {},
        options: Sequence[str] = (),
        dashboard_port: int | None = None,
    ) -> None:
        """Start the head.

        Args:
            environment: variables of all its processes, in addition to this process's environment
                and the token. RAY_AUTH_TOKEN replaces the new token.
            options: more options of `ray start`, which replace the usual ones.
            dashboard_port: None for a free port.
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
            # Ray's default niceness is 15, with which ranks starve if other processes compute.
            "RAY_worker_niceness": "0",
            # Ray considers a node dead after five answers that took 10 s each. The raylet then ends
            # with exit code 0, which `ray start` does not report.
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
            # Otherwise the client server waits 30 s for the port, and then Ray ends the head.
            f"--runtime-env-agent-port={free_port()}",
            f"--num-cpus={cpus}",
            # do not print the output of workers in drivers, because our programs print it
            "--include-log-monitor=false",
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
        """Return the id of the process that is the parent of the head's processes."""
        return self._process.pid

    def stop(self) -> None:
        _kill(self._process)

    def start_again_if_dead(self) -> str:
        """Restart the head at the same addresses if the head or the raylet of its node has died.

        Returns:
            The output of `ray start`, which lists processes with their exit codes and shows their
            logs; empty if all processes live.
        """
        if all(is_alive(process_id) for process_id in self._vital):
            return ""
        with suppress(subprocess.TimeoutExpired):  # Ray checks its processes once a second
            self._process.wait(timeout=5)
        self.stop()
        output = self._output.read_text(errors="replace")
        self._process = self._start()
        return output

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop the process that answers requests about nodes, so that the head answers none."""
        (server,) = _processes(self._process, "gcs_server")
        server.suspend()
        try:
            yield
        finally:
            server.resume()

    def actors(self, name: str = r"(RankActor|NodeAgent|DataWorker)") -> list[psutil.Process]:
        """Return the processes of our actors on the head's node, or only those of one class."""
        processes = psutil.Process(self.process_id).children(recursive=True)
        return [p for p in processes if re.match(f"ray::{name}", " ".join(command_of(p)))]

    def add_node(self, cpus: int, *options: str, environment: Mapping[str, str] = {}) -> "RayNode":
        """Start another node on this machine, and wait until it has joined the cluster.

        The node has a session directory into which it unpacks the code of jobs, as on another
        machine. If it is killed while it unpacks, other nodes do not find an incomplete package.

        Args:
            options: options of `ray start`.
            environment: variables of the node's processes, in addition to those of the head.
        """
        before = self.alive_nodes()
        directory = self.folder / f"n{next(self._numbers)}"
        return RayNode(
            _started(
                lambda: self.alive_nodes() - before,
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
        """Return whether the head has noticed that killed nodes are dead, which takes a while."""
        return len(self.alive_nodes()) == 1

    def alive_nodes(self) -> set[str]:
        """Return the ids of all nodes, including the head's node."""

        def nodes() -> Any:
            with suppress(OSError):  # a busy head may answer after 30 s that it does not know them
                return self.ask("v0/nodes")["data"]["result"]["result"]

        listed = wait_until(nodes, START_SECONDS)
        return {node["node_id"] for node in listed if node["state"] == "ALIVE"}

    def ask(self, question: str) -> Any:
        request = urllib.request.Request(
            f"{self.dashboard}/api/{question}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


class RayNode:
    """Node that has joined the head."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def process_id(self) -> int:
        """Return the id of the process that is the parent of the node's processes."""
        return self._process.pid

    def kill(self) -> None:
        """Kill all processes, as if the machine had lost power; its objects are lost at once."""
        _kill(self._process)

    def kill_raylet(self) -> None:
        """Kill only the raylet; the processes of its actors end later as a consequence."""
        (raylet,) = _processes(self._process, "raylet")
        raylet.kill()

    def titles(self) -> list[str]:
        """Return the titles of the node's processes; an actor's title has its current method."""
        processes = psutil.Process(self.process_id).children(recursive=True)
        return [" ".join(command_of(process)) for process in processes]


def _processes(parent: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    return [p for p in psutil.Process(parent.pid).children(recursive=True) if p.name() == name]


def _started(
    runs: Callable[[], object], options: list[str], environment: Mapping[str, str], output: Path
) -> subprocess.Popen[bytes]:
    """Run `ray start` with these options until it succeeds, with its output in a file.

    Ray ends a node if one of its agents takes more than about 15 s to start (2.60.0), which happens
    on a busy machine. The node is then started again, as it is if it does not answer within
    `START_SECONDS`. A node runs as soon as its agent listens.

    Raises:
        AssertionError: no start has succeeded; the message has the output of the last one.
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
                    # Another Ray on this machine may use the default port.
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
            except BaseException:  # such as the exception of pytest at a test's time limit
                _kill(process)
                raise
            _kill(process)  # processes that the command has started may still run
    raise AssertionError(f"`ray start {' '.join(options)}` has failed {STARTS} times: {said}")


def _listens(parent: subprocess.Popen[bytes], port: int) -> bool:
    """Return whether the process that listens on a port is a child of this process."""
    for process in psutil.Process(parent.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("tcp")
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
                return True
    return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # Ray needs twenty seconds to end on SIGTERM
    process.wait()
