"""A Ray session: embedded in this process's machine, or joined to a running cluster.

In both cases

- Ray's token authentication is on (see `cluster.authentication`),
- every worker process imports this program's packages, whatever lies in the driver's folder,
- what workers print goes to Ray's log files and what Ray reports of them to this program's log,
  not to the driver's terminal,
- leaving the session stops what it started and nothing else.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.job_config import JobConfig

from cluster.authentication import REMEDY, enable_authentication
from cluster.errors import ClusterError, HeadLostError
from cluster.packages import INSTALLATION, import_own_packages

# Windows in flight take a few tens of MB. Ray maps the store lazily, and falls back to disk
# by itself where shared memory is smaller (containers often have 64 MB).
EMBEDDED_OBJECT_STORE_BYTES = 512 * 2**20
CONNECT_TIMEOUT_SECONDS = 10.0

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


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Start an embedded Ray (``address`` None) or join a cluster, and leave it at the end.

    Args:
        address: ``HOST:PORT`` of a cluster's head as seen from one of its nodes, or ``auto`` for
            the cluster of which this machine, or this Ray job, is part.

    Raises:
        ClusterError: the cluster cannot be reached, or refuses the token.
    """
    assert not ray.is_initialized(), "one session at a time"
    import_own_packages()
    print_message = ray_worker.print_to_stdstream
    ray_worker.print_to_stdstream = _log_message
    head_lost = False
    try:
        with _sigterm_handler_kept():
            if address is None:
                _start_embedded()
            else:
                _join(address)
        yield
    except HeadLostError:
        head_lost = True
        raise
    finally:
        if head_lost:
            _end_embedded()
        else:
            ray.shutdown(wait_for_processes=True)
        ray_worker.print_to_stdstream = print_message


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


def _end_embedded() -> None:
    """What `ray.shutdown` does last; before that it would look for the head for half a minute."""
    node = ray_worker._global_node
    if node is not None and node.is_head():
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def require_total(cpus: float, gpus: float) -> None:
    """Check that an embedded Ray has that many CPUs and GPUs: nothing will join it.

    To a cluster nodes may be added while a run waits for them.

    Raises:
        ClusterError: too few.
    """
    node = ray_worker._global_node
    if node is None or not node.is_head():
        return
    needed = {"CPU": float(cpus), "GPU": float(gpus)}
    found = ray.cluster_resources()
    short = {name: n for name, n in needed.items() if n > found.get(name, 0.0)}
    if short:
        raise ClusterError(
            f"The run needs {_amounts(short, needed)}, but Ray has only {_amounts(short, found)} "
            "here. Lower cluster.ranks, cluster.data_workers or what each of them takes, or join a "
            "larger cluster with --address"
        )


def _amounts(names: dict[str, float], amounts: dict[str, float]) -> str:
    return " and ".join(f"{amounts.get(name, 0.0):g} {name}s" for name in names)


def _start_embedded() -> None:
    enable_authentication(create_token=True)
    _initialise(
        address="local",
        include_dashboard=False,
        object_store_memory=EMBEDDED_OBJECT_STORE_BYTES,
    )


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
