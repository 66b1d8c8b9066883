"""Embedded Ray: a cluster that this process starts on its machine, with the cleanup after a loss.

    start ──not up in time──▶ clean up, EmbeddedRayError
      │
      └──▶ use ──raylet or head dead──▶ clean up, EmbeddedRayError

After either error, the same process can start another Ray.

Other users of the machine have no access: Ray listens on the loopback address only, requires a
token, and keeps its files in a folder that only this user can enter (`cluster.ray.private_folder`).
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.errors import ClusterError, EmbeddedRayError, HeadLostError, RankLostError
from cluster.packages import INSTALLATION
from cluster.ray import private
from cluster.ray.authentication import enable_authentication
from cluster.ray.marked_processes import MarkedProcesses
from cluster.ray.private_folder import PrivateFolder
from foundation.wording import counted

# Windows on their way from data workers to ranks take a few tens of MB. Ray maps its object store
# lazily, and falls back to disk if shared memory is smaller (containers often have 64 MB).
EMBEDDED_OBJECT_STORE_BYTES = 512 * 2**20
# Seconds for a raylet to start. On a very busy machine, the start takes a minute or more.
START_SECONDS = 120.0
# Processes without which an embedded Ray cannot work. When one of a raylet's agents dies, the
# raylet ends itself.
VITAL_PROCESSES = frozenset({"gcs_server", "raylet"})
# Exceptions that may be consequences of a lost Ray.
_LOSS_MARKERS = (RayError, HeadLostError, RankLostError, RuntimeError, ConnectionError)


@dataclass(frozen=True)
class EmbeddedRay:
    """Settings of a Ray that this process starts for itself.

    Attributes:
        cpus: minimum number of CPUs that Ray offers, even if the machine has fewer.
        niceness: niceness of all processes that work for the run, added to the niceness of this
            process.
    """

    cpus: float = 0.0
    niceness: int = 0


@contextmanager
def embedded_ray(wanted: EmbeddedRay) -> Iterator[None]:
    processes = MarkedProcesses()
    folder = _private_folder()
    lost = True  # a failed start is treated like a loss
    try:
        with (
            private.sigterm_handler_kept(),
            private.nodes_with_least_processes(),
            processes.marking(),
            _allow_slow_start(processes),
        ):
            _start_embedded(wanted, folder)
        lost = False
        yield
    except EmbeddedRayError:
        lost = True
        raise
    except _LOSS_MARKERS as error:
        lost = isinstance(error, HeadLostError) or embedded_ray_is_lost()
        if lost:
            raise EmbeddedRayError(f"Ray is lost on this machine: {error}") from error
        raise
    finally:
        lost = lost or embedded_ray_is_lost()
        if lost:
            processes.kill()  # at once: ranks may still train, and agents wait for the lost head
        ray.shutdown(wait_for_processes=True)
        if lost:
            folder.keep_for_inspection()  # its log files show the cause
        else:
            folder.remove()


def is_embedded() -> bool:
    """Return whether this process has started the Ray that it uses."""
    return private.started_processes() is not None


def embedded_ray_is_lost() -> bool:
    """Return whether this process has started a Ray that has since died; thread-safe."""
    return bool(_dead_processes())


def check_embedded_ray(alive_nodes: int) -> None:
    """Check that the Ray started by this process is alive; do nothing if it has started none.

    Args:
        alive_nodes: the number of nodes that are alive according to the head.

    Raises:
        EmbeddedRayError: the Ray started by this process has died.
    """
    if dead := _dead_processes():
        raise EmbeddedRayError(f"Ray is lost on this machine: {' and '.join(dead)} has ended")
    if alive_nodes == 0 and is_embedded():
        raise EmbeddedRayError("Ray is lost on this machine: its raylet does not answer its head")


def _dead_processes() -> list[str]:
    started = private.started_processes() or {}
    return [
        kind
        for kind in VITAL_PROCESSES
        for process in started.get(kind, [])
        if process.poll() is not None
    ]


def require_gpus(gpus: float) -> None:
    """Check that an embedded Ray has enough GPUs, because no further node will join it.

    A joined cluster is not checked: nodes may be added to it while a run waits for them.

    Raises:
        ClusterError: the embedded Ray has too few GPUs.
    """
    found = ray.cluster_resources().get("GPU", 0.0)
    if is_embedded() and found < gpus:
        raise ClusterError(
            f"The run needs {counted(gpus, 'GPU')}, but Ray has only {found:g} here. Lower "
            "cluster.ranks or cluster.gpus_per_rank, or join a larger cluster with --address"
        )


def _allow_slow_start(processes: MarkedProcesses) -> AbstractContextManager[None]:
    """Give a node more than Ray's 30 s to register, as long as its raylet is alive.

    The raylet gives its agents 15 s to start, a time that cannot be configured. If the agents take
    longer, the raylet ends itself, and Ray must be started again.
    """
    since = time.monotonic()

    def is_still_starting() -> bool:
        names = [process.name() for process in processes.alive()]
        return "raylet" in names and time.monotonic() - since <= START_SECONDS

    return private.extend_node_start_timeout(is_still_starting)


def _private_folder() -> PrivateFolder:
    try:
        return PrivateFolder()
    except OSError as error:
        raise EmbeddedRayError(
            f"Ray has not started on this machine: {error}. Set RAY_TMPDIR to a folder on a disk "
            "of this machine that only you can enter (chmod 700)"
        ) from error


def _start_embedded(wanted: EmbeddedRay, folder: PrivateFolder) -> None:
    enable_authentication(create_token=True)
    try:
        with private.on_loopback() as address:
            initialise(
                address="local",
                include_dashboard=False,
                object_store_memory=EMBEDDED_OBJECT_STORE_BYTES,
                num_cpus=max(private.machine_cpus(), math.ceil(wanted.cpus)),
                _node_ip_address=address,
                _temp_dir=str(folder.path),
                _system_config=private.system_config(wanted.niceness),
            )
    except Exception as error:  # Ray raises bare Exceptions
        reason = str(error).strip(". ") or type(error).__name__
        raise EmbeddedRayError(
            f"Ray has not started on this machine: {reason}. "
            "The machine may be too busy, or short of memory, shared memory or ports; "
            f"the logs of Ray's processes are in {folder.logs} until the next start"
        ) from error


def initialise(**options: Any) -> None:
    """Call `ray.init` with the settings of every session."""
    ray.init(
        job_config=private.job_config(str(INSTALLATION)),
        log_to_driver=False,
        logging_level=logging.ERROR,
        **options,
    )
