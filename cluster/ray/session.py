"""A Ray session: embedded in this process's machine, or joined to a running cluster.

In both cases

- Ray's token authentication is on (see `cluster.ray.authentication`),
- every worker process imports this program's packages, whatever lies in the driver's folder,
- what workers print goes to Ray's log files and what Ray reports of them to this program's log,
  not to the driver's terminal,
- leaving the session stops what it started and nothing else.

An embedded Ray that is lost, or does not come up, leaves nothing behind either; after that another
one can be started in the same process.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import ray_constants
from ray._private import services as ray_services
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import RayError
from ray.job_config import JobConfig

from cluster.errors import ClusterError, EmbeddedRayError, HeadLostError, RankLostError
from cluster.packages import INSTALLATION, import_own_packages
from cluster.ray.authentication import REMEDY, enable_authentication
from cluster.ray.marked_processes import MarkedProcesses
from data_pipeline.wording import counted

# Windows in flight take a few tens of MB. Ray maps the store lazily, and falls back to disk
# by itself where shared memory is smaller (containers often have 64 MB).
EMBEDDED_OBJECT_STORE_BYTES = 512 * 2**20
CONNECT_TIMEOUT_SECONDS = 10.0
# A machine that is very busy takes a minute or more to start a raylet.
START_SECONDS = 120.0
START_LOOK_SECONDS = 0.5
UNREAD_ERRORS = "RAY_IGNORE_UNHANDLED_ERRORS"
# The processes without which an embedded Ray does nothing any more. When one of its agents dies,
# the raylet ends itself.
VITAL_PROCESSES = frozenset({"gcs_server", "raylet"})
# What is raised when Ray is lost in the middle of something.
_SIGNS_OF_LOSS = (RayError, HeadLostError, RankLostError, RuntimeError, ConnectionError)

logger = logging.getLogger(__name__)


class _OwnPackagesFirst(JobConfig):
    """Ray puts the driver's script folder and current folder at the head of ``sys.path`` of every
    worker. Here the installation takes their place, so that a worker imports our packages even
    if such a folder, or a Ray job's working directory, has some of the same names.
    """

    def _serialize(self) -> bytes:
        self._py_driver_sys_path = [str(INSTALLATION)]
        serialized: bytes = super()._serialize()
        return serialized


@dataclass(frozen=True)
class EmbeddedRay:
    """What a Ray has to be like that this process starts for itself.

    Attributes:
        cpus: so many it must have to give away, be there as many or not.
        niceness: of all processes that work for the run, added to this process's own.
    """

    cpus: float = 0.0
    niceness: int = 0


@contextmanager
def ray_session(address: str | None, embedded: EmbeddedRay = EmbeddedRay()) -> Iterator[None]:
    """Start an embedded Ray (``address`` None) or join a cluster, and leave it at the end.

    Args:
        address: ``HOST:PORT`` of a cluster's head as seen from one of its nodes, or ``auto`` for
            the cluster of which this machine, or this Ray job, is part.

    Raises:
        ClusterError: the cluster cannot be reached, or refuses the token.
        EmbeddedRayError: the embedded Ray has not come up, or is lost. Nothing is left of it.
    """
    assert not ray.is_initialized(), "one session at a time"
    import_own_packages()
    print_message = ray_worker.print_to_stdstream
    ray_worker.print_to_stdstream = _log_message
    try:
        with (
            _embedded(embedded) if address is None else _joined(address),
            _without_unread_errors(),
        ):
            yield
    finally:
        ray_worker.print_to_stdstream = print_message


@contextmanager
def _joined(address: str) -> Iterator[None]:
    head_lost = False
    try:
        with _sigterm_handler_kept():
            _join(address)
        yield
    except HeadLostError:
        head_lost = True
        raise
    finally:
        if not head_lost:  # else Ray would look for it for half a minute
            ray.shutdown()


@contextmanager
def _embedded(wanted: EmbeddedRay) -> Iterator[None]:
    processes = MarkedProcesses()
    lost = True  # until it is there
    try:
        with _sigterm_handler_kept(), processes.marking(), _patient_start(processes):
            _start_embedded(wanted)
        lost = False
        yield
    except EmbeddedRayError:
        lost = True
        raise
    except _SIGNS_OF_LOSS as error:
        lost = isinstance(error, HeadLostError) or embedded_ray_is_lost()
        if lost:
            raise EmbeddedRayError(f"Ray is lost on this machine: {error}") from error
        raise
    finally:
        if lost or embedded_ray_is_lost():
            processes.kill()  # at once: ranks may train on, and agents wait for their head
        ray.shutdown(wait_for_processes=True)


def embedded_ray_is_lost() -> bool:
    """Whether this process has started a Ray that has died since; any thread may ask."""
    return bool(_dead_processes())


def check_embedded_ray(alive_nodes: int) -> None:
    """alive_nodes: how many there are, as the head says.

    Raises:
        EmbeddedRayError: this process has started a Ray that has died since.
    """
    if dead := _dead_processes():
        raise EmbeddedRayError(f"Ray is lost on this machine: {' and '.join(dead)} has ended")
    if alive_nodes == 0 and _is_embedded():
        raise EmbeddedRayError("Ray is lost on this machine: its raylet does not answer its head")


def _is_embedded() -> bool:
    node = ray_worker._global_node  # Ray 2.60.0; None outside a session
    return node is not None and node.is_head()


def _dead_processes() -> list[str]:
    if not _is_embedded():
        return []
    # Ray 2.60.0: {kind: [ProcessInfo]}, of what `ray.init` has started and not ended itself.
    started = ray_worker._global_node.all_processes
    return [
        kind
        for kind in VITAL_PROCESSES
        for info in started.get(kind, [])
        if info.process.poll() is not None
    ]


@contextmanager
def _without_unread_errors() -> Iterator[None]:
    """Nobody takes the answers of actors that are given up, and Ray would print the error of each
    as "Unhandled error". What happened to an actor is told by the answers that are taken."""
    before = os.environ.get(UNREAD_ERRORS)
    os.environ[UNREAD_ERRORS] = "1"  # Ray looks for it each time (2.60.0)
    try:
        yield
    finally:
        os.environ.pop(UNREAD_ERRORS, None)
        if before is not None:
            os.environ[UNREAD_ERRORS] = before


@contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """Ray sets handlers of its own, in Python and below; whoever listened listens on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    set_by_ray = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    # Below Python, Ray 2.60.0 replaces the handler when it connects, and puts the default in its
    # place when it disconnects, long before it has shut down: a SIGTERM then would be the end.
    disabled = ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    try:
        yield
    finally:
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = disabled
        ray_utils.set_sigterm_handler = set_by_ray
        signal.signal(signal.SIGTERM, handler)


def machine_cpus() -> int:
    """The CPUs that an embedded Ray has if it is told nothing."""
    return int(ray_utils.get_num_cpus(override_docker_cpu_warning=True))  # Ray 2.60.0


def require_gpus(gpus: float) -> None:
    """Check that an embedded Ray has that many GPUs: nothing will join it.

    To a cluster nodes may be added while a run waits for them.

    Raises:
        ClusterError: too few.
    """
    found = ray.cluster_resources().get("GPU", 0.0)
    if _is_embedded() and found < gpus:
        raise ClusterError(
            f"The run needs {counted(gpus, 'GPU')}, but Ray has only {found:g} here. Lower "
            "cluster.ranks or cluster.gpus_per_rank, or join a larger cluster with --address"
        )


@contextmanager
def _patient_start(processes: MarkedProcesses) -> Iterator[None]:
    """Ray 2.60.0 gives a node that it starts 30 s until its head knows it; here it has longer.

    The raylet in turn gives its agents 15 s, which nothing changes: if they take longer it ends
    itself, and Ray has to be started again.
    """
    ask, since = ray_services.get_node, time.monotonic()

    def get_node(head: str, node: str) -> Any:
        while True:
            try:
                return ask(head, node)
            except RuntimeError:  # the head does not know it
                names = [process.name() for process in processes.alive()]
                if "raylet" not in names or time.monotonic() - since > START_SECONDS:
                    raise
            time.sleep(START_LOOK_SECONDS)

    ray_services.get_node = get_node
    try:
        yield
    finally:
        ray_services.get_node = ask


def _start_embedded(wanted: EmbeddedRay) -> None:
    enable_authentication(create_token=True)
    try:
        _initialise(
            address="local",
            include_dashboard=False,
            object_store_memory=EMBEDDED_OBJECT_STORE_BYTES,
            num_cpus=max(machine_cpus(), math.ceil(wanted.cpus)),
            # Ray 2.60.0 calls it internal; the environment's RAY_worker_niceness gives way to it.
            _system_config={"worker_niceness": wanted.niceness},
        )
    except Exception as error:  # Ray raises bare ones
        reason = str(error).strip(". ") or type(error).__name__
        raise EmbeddedRayError(
            f"Ray has not started on this machine: {reason}. "
            "The machine may be too busy, or short of memory, of shared memory or of ports; "
            "what Ray's processes say is in /tmp/ray/session_latest/logs"
        ) from error


def _join(address: str) -> None:
    if "://" in address:
        raise ClusterError(
            f"{address} is a web address. A driver joins a cluster from one of its nodes by "
            "HOST:PORT of the head, usually port 6379, or by auto; from elsewhere, use "
            "`transloom submit RECIPE --address http://HOST:8265`"
        )
    enable_authentication(create_token=False)
    try:
        head: str = canonicalize_bootstrap_address_or_die(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise ClusterError(
            f"There is no Ray cluster to be found at {address}: {str(error).rstrip('. ')}. Start "
            "one with `ray start --head`, or give the HOST:PORT that it printed; without --address "
            "transloom starts Ray by itself"
        ) from error
    _check_head(head)
    try:
        _initialise(address=head)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"The Ray cluster at {head} answers, but cannot be joined from here: "
            f"{error.__cause__ or error}. The driver must run on one of the cluster's nodes, with "
            "the same versions of Python and Ray; from elsewhere, use `transloom submit`"
        ) from error


def _check_head(head: str) -> None:
    """One question to the head, as Ray itself tries for minutes when nobody answers, and for
    20 seconds when the token is refused."""
    with init_grpc_channel(head) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(
                GetClusterIdRequest(), timeout=CONNECT_TIMEOUT_SECONDS
            )
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise ClusterError(
                    f"The Ray cluster at {head} refuses this user's token: {REMEDY}"
                ) from error
            raise ClusterError(
                f"No Ray cluster answers at {head} ({error.code().name.lower()}). Compare with the "
                "address that `ray start --head` printed (port 6379 unless set otherwise, not the "
                "dashboard's 8265), and see whether a firewall lies between"
            ) from error


def _log_message(message: dict[str, Any], ignore_prefix: bool) -> None:
    """Stands in for Ray's printing of news ("a worker died") on the driver's standard output,
    where it would spoil answers in JSON; ``log_to_driver=False`` does not silence it."""
    for line in message["lines"]:
        logger.info("Ray: %s", line)


def _initialise(**options: Any) -> None:
    ray.init(
        job_config=_OwnPackagesFirst(),
        log_to_driver=False,
        logging_level=logging.ERROR,
        **options,
    )
