"""A real Ray head, started with `ray start`, for all tests that need a cluster."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil

from support.processes import command_of
from support.rank_pool import free_port


class RayHead:
    """A head on free ports with a token of its own; `stop` ends all of its processes.

    Attributes:
        address: HOST:PORT to join it.
        dashboard: where it takes jobs.
        token: what a client must show.
    """

    def __init__(self, folder: Path, cpus: int, environment: Mapping[str, str] = {}) -> None:
        """environment: of all processes of the cluster, beside this process's own."""
        port, dashboard_port = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        self.token = secrets.token_hex(32)
        self._environment = {
            **os.environ,
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }
        self._process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "ray"),
                "start",
                "--head",
                "--block",
                "--node-ip-address=127.0.0.1",
                f"--port={port}",
                f"--dashboard-port={dashboard_port}",
                "--dashboard-host=127.0.0.1",
                # Its default port may be held by any other Ray on this machine.
                f"--dashboard-agent-listen-port={free_port()}",
                f"--ray-client-server-port={free_port()}",
                f"--num-cpus={cpus}",
                f"--object-store-memory={200 * 2**20}",
                # Unix sockets lie below: their paths may have 107 bytes.
                f"--temp-dir={folder}",
                "--disable-usage-stats",
            ],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait(60.0)

    @property
    def process_id(self) -> int:
        """Of the process whose children are the head's."""
        return self._process.pid

    def stop(self) -> None:
        _kill(self._process)

    def actors(self, name: str = r"(RankActor|NodeAgent|DataWorker)") -> list[psutil.Process]:
        """The processes on the head's node of our actors, or of those of one class."""
        processes = psutil.Process(self.process_id).children(recursive=True)
        return [p for p in processes if re.match(f"ray::{name}", " ".join(command_of(p)))]

    def add_node(self, cpus: int) -> "RayNode":
        """Another node of the cluster, on this machine."""
        return RayNode(self.address, self._environment, cpus)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        request = urllib.request.Request(
            f"{self.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {self.token}"}
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    json.load(answer)
                return
            except (urllib.error.URLError, OSError, ValueError):
                assert time.monotonic() < deadline, "the Ray head does not answer"
                assert self._process.poll() is None, "the Ray head has died"
                time.sleep(0.2)


class RayNode:
    """A node beside the head. It takes a few seconds until the cluster knows it."""

    def __init__(self, address: str, environment: Mapping[str, str], cpus: int) -> None:
        self._process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "ray"),
                "start",
                "--block",
                f"--address={address}",
                "--node-ip-address=127.0.0.1",
                f"--dashboard-agent-listen-port={free_port()}",
                f"--num-cpus={cpus}",
                f"--object-store-memory={200 * 2**20}",
                "--disable-usage-stats",
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def process_id(self) -> int:
        """Of the process whose children are the node's."""
        return self._process.pid

    def kill(self) -> None:
        """As if its machine had lost power: processes and objects are gone at once."""
        _kill(self._process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # SIGTERM takes Ray twenty seconds
        process.wait()
