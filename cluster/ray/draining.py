"""Draining of this process's node: its ranks save a checkpoint and move to other nodes."""

import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import ray

from cluster.errors import ClusterError
from cluster.ray.session import ray_session

POLL_SECONDS = 0.5
# Process title of a rank; see `cluster.ranks.actor`.
RANK_TITLE = "ray::RankActor"


def drain_own_node(seconds: int) -> None:
    """Ask Ray to drain this node, and wait until no rank is left on it.

    This function does nothing on a node without ranks.

    Args:
        seconds: time limit for the ranks, after which Ray ends the node.

    Raises:
        ClusterError: the cluster cannot be joined, or refuses to drain the node.
    """
    if not _has_ranks():
        return
    with ray_session("auto", report_open_endpoints=lambda warning: None):
        context = ray.get_runtime_context()
        command = [
            *(str(Path(sys.executable).parent / "ray"), "drain-node"),
            *("--address", context.gcs_address),
            *("--node-id", context.get_node_id()),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", "its machine leaves"),
            *("--deadline-remaining-seconds", str(seconds)),
        ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(
            f"Ray has refused to drain this node: {(done.stderr or done.stdout).strip()}"
        )
    while _has_ranks():
        time.sleep(POLL_SECONDS)


def _has_ranks() -> bool:
    titles = (
        " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    )
    return any(title.startswith(RANK_TITLE) for title in titles)
