"""A real Ray head, started with `ray start`, for all tests that need a cluster."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from support.rank_pool import free_port


class RayHead:
    """A head on free ports with a token of its own; `stop` ends all of its processes.

    Attributes:
        address: HOST:PORT to join it.
        dashboard: where it takes jobs.
        token: what a client must show.
    """

    def __init__(self, folder: Path, cpus: int) -> None:
        port, dashboard_port = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        self.token = secrets.token_hex(32)
        # Unix sockets lie below: their paths may have 107 bytes.
        self._temporary = folder
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
                f"--temp-dir={folder}",
                "--disable-usage-stats",
            ],
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait(60.0)

    def stop(self) -> None:
        _kill(self._process)

    def add_node(self, cpus: int) -> "RayNode":
        """Another node of the cluster, on this machine."""
        return RayNode(self.address, self.token, cpus)

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

    def __init__(self, address: str, token: str, cpus: int) -> None:
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
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        """As if its machine had lost power: processes and objects are gone at once."""
        _kill(self._process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # SIGTERM takes Ray twenty seconds
        process.wait()
