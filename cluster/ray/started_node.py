"""A node of a Ray cluster that this process starts with `ray start --block` and later ends.

The machine may also run nodes of other jobs. The node therefore uses free ports and keeps its files
in a private folder (`cluster.ray.private_folder`). Ending the node kills only the processes of this
node; a bare `ray stop` would also kill the processes of other nodes.
"""

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

from ray.util import get_node_ip_address

from cluster.errors import ClusterError
from cluster.ray.embedded import EMBEDDED_OBJECT_STORE_BYTES
from cluster.ray.marked_processes import MarkedProcesses
from cluster.ray.private_folder import PrivateFolder
from foundation.free_ports import free_port

# On a busy machine, Ray (2.60.0) gives up on a node if one of its agents takes more than about 15 s
# to start.
STARTS = 5
LINES_KEPT = 20
UP = "Ray runtime started"
# Metrics are off: nothing reads the metrics of such a cluster, and their ports require no token.
_NO_METRICS = {
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}


@dataclass(frozen=True)
class NodeSettings:
    """Resources of a node, and the niceness of its workers."""

    cpus: int
    gpus: int
    niceness: int


class StartedNode:
    """A running node.

    Attributes:
        head: HOST:PORT of the cluster's head, which may be this node.
    """

    def __init__(self, settings: NodeSettings, head: str | None) -> None:
        """Start a node and wait until it has joined the cluster.

        Args:
            head: HOST:PORT of the head to join; None makes this node a head.

        Raises:
            ClusterError: the node did not start in several attempts.
        """
        self._reader: Thread | None = None
        for _ in range(STARTS):
            self.head = head or f"{get_node_ip_address()}:{free_port()}"
            self._folder = PrivateFolder()
            self._processes = MarkedProcesses()
            self._last_words: deque[str] = deque(maxlen=LINES_KEPT)
            self._ray = self._start(settings, is_head=head is None)
            assert self._ray.stdout
            if self._wait_until_up(self._ray.stdout):
                return
            self.end()
        raise ClusterError(
            f"`ray start` on {socket.gethostname()} has failed {STARTS} times for a node of the "
            f"cluster {self.head}. The last output of `ray start` is: {self.last_output}"
        )

    @property
    def last_output(self) -> str:
        """The last output of `ray start`, in one line."""
        return " ".join(self._last_words)

    def on_exit(self, tell: Callable[[], None]) -> None:
        """Call `tell` once in a separate thread when the node has ended."""
        output = self._ray.stdout
        assert output

        def read_on() -> None:
            self._last_words.extend(map(str.strip, output))  # blocks until the output ends
            self._ray.wait()
            tell()

        self._reader = Thread(target=read_on, daemon=True)
        self._reader.start()

    def end(self) -> None:
        """Kill the node's processes and remove their files."""
        self._processes.kill()
        self._ray.wait()
        if self._reader:
            self._reader.join()
        assert self._ray.stdout
        self._ray.stdout.close()
        self._folder.remove()

    def _start(self, settings: NodeSettings, *, is_head: bool) -> "subprocess.Popen[str]":
        own_port = self.head.rpartition(":")[2]
        options = [
            f"--num-cpus={settings.cpus}",
            f"--num-gpus={settings.gpus}",
            f"--object-store-memory={EMBEDDED_OBJECT_STORE_BYTES}",
            f"--dashboard-agent-listen-port={free_port()}",
            "--min-worker-port=0",  # any free port; by default, every node uses 10002 and above
            "--max-worker-port=0",
            # A folder of mode 0700. Otherwise a node that is not the head would use the path of the
            # head's folder, and make it writable for all users.
            f"--temp-dir={self._folder.path}",
            "--disable-usage-stats",
        ]
        if is_head:
            options += ["--head", f"--port={own_port}", "--include-dashboard=false"]
            # A client server that does not get its port, or waits 30 s for that of the agent, ends
            # the head after Ray has reported that it runs.
            options += [f"--ray-client-server-port={free_port()}"]
            options += [f"--runtime-env-agent-port={free_port()}"]
        else:
            options += [f"--address={self.head}"]
        with self._processes.marking():
            niceness = {"RAY_worker_niceness": str(settings.niceness)}
            return subprocess.Popen(
                [Path(sys.executable).parent / "ray", "start", "--block", *options],
                env={**os.environ, **_NO_METRICS, **niceness},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )

    def _wait_until_up(self, output: IO[str]) -> bool:
        for line in output:
            self._last_words.append(line.strip())
            if UP in line:  # printed once the head knows the node
                return True
        return False
