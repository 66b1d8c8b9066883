"""All private names of Ray that we use, as in Ray 2.60.0.

Each private name is used in a function that states its purpose. Context managers restore the names
that they replace. Before you pin another version of Ray, compare this file with that version.
`tests/cluster/ray/` fails if one of the names has moved.
"""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from ray._private import ray_constants
from ray._private import services as ray_services
from ray._private import state as ray_state
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.grpc_utils import init_grpc_channel
from ray._private.node import Node
from ray._raylet import (  # type: ignore[attr-defined]
    AuthenticationMode,
    AuthenticationTokenLoader,
    Config,
    GcsClientOptions,
    get_authentication_mode,
)
from ray.core.generated import gcs_pb2
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.job_config import JobConfig

# Environment variable that Ray reads each time before it prints the error of an unread result.
IGNORE_UNREAD_ERRORS = "RAY_IGNORE_UNHANDLED_ERRORS"
# Loggers of Ray's Jobs API that print unrequested messages on the terminal.
NOISY_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_START_POLL_SECONDS = 0.5


def job_config(first_on_path: str) -> JobConfig:
    """Return a job config that puts `first_on_path` first on the `sys.path` of every worker.

    By default, Ray puts the driver's script directory and current directory there. This config
    makes a worker import our packages even if such a directory, or a Ray job's working directory,
    has packages of the same names.
    """

    class OwnFolderFirst(JobConfig):
        def _serialize(self) -> bytes:
            self._py_driver_sys_path = [first_on_path]
            serialized: bytes = super()._serialize()
            return serialized

    return OwnFolderFirst()


def system_config(niceness: int) -> dict[str, Any]:
    """Return the `_system_config` of `ray.init` for an embedded Ray.

    The niceness takes precedence over RAY_worker_niceness. Metrics are off because their port is
    open to all users: it requires no token.
    """
    return {"worker_niceness": niceness, "enable_metrics_collection": False}


@contextmanager
def on_loopback() -> Iterator[str]:
    """Let Ray use the loopback address as the address of a node; yield that address.

    All processes of the node then listen only on the loopback address. By default, Ray replaces
    this address with one that other machines can reach.
    """
    resolve = ray_services.resolve_ip_for_localhost
    ray_services.resolve_ip_for_localhost = lambda host: host
    try:
        yield "127.0.0.1"
    finally:
        ray_services.resolve_ip_for_localhost = resolve


def session_folder() -> Path:
    """Return the session directory of the node that this process has joined."""
    return Path(ray_worker._global_node.get_session_dir_path())


@contextmanager
def redirect_ray_messages(tell: Callable[[str], None]) -> Iterator[None]:
    """Redirect Ray's messages ("a worker died") from the driver's standard output to `tell`.

    On standard output they would corrupt JSON answers; `log_to_driver=False` does not silence them.
    """

    def take(message: dict[str, Any], ignore_prefix: bool) -> None:
        for line in message["lines"]:
            tell(line)

    before = ray_worker.print_to_stdstream
    ray_worker.print_to_stdstream = take
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = before


@contextmanager
def sigterm_handler_kept() -> Iterator[None]:
    """Keep the process's SIGTERM handler, which Ray would replace in Python and in its C++ code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    set_by_ray = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    # In C++, Ray replaces the handler when it connects. When it disconnects, it restores the
    # default handler, long before its shutdown ends: a SIGTERM in between would end the process.
    disabled = ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    try:
        yield
    finally:
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = disabled
        ray_utils.set_sigterm_handler = set_by_ray
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def extend_node_start_timeout(is_still_starting: Callable[[], bool]) -> Iterator[None]:
    """Let Ray wait for a node that it starts as long as `is_still_starting()` is true.

    By default, Ray gives a node 30 s to register with its head.
    """
    ask = ray_services.get_node

    def get_node(head: str, node: str) -> Any:
        while True:
            try:
                return ask(head, node)
            except RuntimeError:  # the head does not know the node
                if not is_still_starting():
                    raise
            time.sleep(_START_POLL_SECONDS)

    ray_services.get_node = get_node
    try:
        yield
    finally:
        ray_services.get_node = ask


@contextmanager
def nodes_with_least_processes() -> Iterator[None]:
    """Start nodes without the processes and sockets that a run on one machine does not need.

    This omits the dashboard's server (which starts even with `include_dashboard=False`), the
    autoscaler, and the forwarding of logs to the driver. The node's agent runs as in an
    installation without the dashboard's packages, where it serves neither HTTP nor metrics.
    Together, the omitted parts take 40 % of the CPU time of a node's start.
    """

    def no_server(node: Node, **options: Any) -> None:
        node._webui_url = None

    def nothing(node: Node) -> None:
        pass

    replaced: list[tuple[Any, str, Any]] = [
        (Node, "start_api_server", no_server),
        (Node, "start_monitor", nothing),
        (Node, "start_log_monitor", nothing),
        (ray_utils, "get_dashboard_dependency_error", lambda: ImportError("not wanted")),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def started_processes() -> dict[str, list[subprocess.Popen[bytes]]] | None:
    """Return the processes that `ray.init` has started here, by kind, such as "raylet".

    Processes that Ray has ended itself are omitted. The result is None if this process has started
    no Ray.
    """
    node = ray_worker._global_node  # None outside a session
    if node is None or not node.is_head():
        return None
    return {kind: [info.process for info in infos] for kind, infos in node.all_processes.items()}


def machine_cpus() -> int:
    """Return the number of CPUs that Ray uses by default."""
    return int(ray_utils.get_num_cpus(override_docker_cpu_warning=True))


def machine_gpus() -> int:
    """Return the number of GPUs that Ray uses by default: the machine's visible GPUs."""
    manager = get_accelerator_manager_for_resource("GPU")
    visible = manager.get_current_process_visible_accelerator_ids()
    there = int(manager.get_current_node_num_accelerators())
    return there if visible is None else min(there, len(visible))


def address_of_head(address: str) -> str:
    """Return `HOST:PORT` of the head that an address refers to.

    Args:
        address: as in `ray.init`; may be `auto`.

    Raises:
        ConnectionError, ValueError, OSError: no head was found.
    """
    # Ray's compiled code accepts no subclass of str, such as a Location.
    head: str = ray_services.canonicalize_bootstrap_address_or_die(str(address))
    return head


def ask_head(head: str, timeout_seconds: float) -> None:
    """Send one request to a head, to check that it answers and accepts the token.

    Ray's own client retries for minutes without an answer, and for 20 seconds with a refused token.

    Raises:
        grpc.RpcError: the head does not answer in time, or refuses the token.
    """
    with init_grpc_channel(head) as channel:
        NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=timeout_seconds)


def answers_without_token(head: str, timeout_seconds: float) -> bool:
    """Return whether the head accepts a request without a token."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):  # parsed as Ray parses it
        return False  # with TLS, a client needs a certificate
    with grpc.insecure_channel(head, ray_constants.GLOBAL_GRPC_OPTIONS) as channel:
        stub = NodeInfoGcsServiceStub(channel)
        try:
            stub.GetClusterId(GetClusterIdRequest(), timeout=timeout_seconds)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise
    return True


def query_without_joining(head: str) -> None:
    """Let this process query a head about nodes and resources without joining its cluster.

    Args:
        head: HOST:PORT, as `address_of_head` returns it.
    """
    options = GcsClientOptions.create(
        head, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=True
    )
    ray_state.state._initialize_global_state(options)


def known_nodes() -> list[dict[str, Any]]:
    """Return the head's node table, as `ray.nodes()` does in a process that has joined."""
    nodes: list[dict[str, Any]] = ray_state.state.node_table()
    return nodes


def dashboard_of(head: str) -> str:
    """Return the URL of the dashboard of the cluster that has this head."""
    # Imported late, because it imports aiohttp.
    from ray.dashboard.utils import ray_address_to_api_server_url

    url: str = ray_address_to_api_server_url(head)
    return url


def nvml() -> Any:
    """Return Ray's copy of pynvml, the Python bindings of NVIDIA's management library."""
    from ray._private.thirdparty import pynvml  # needed only if an NVIDIA driver is installed

    return pynvml


def free_resources() -> dict[str, dict[str, float]]:
    """Return the free resources of each node, by the node's id."""
    free: dict[str, dict[str, float]] = ray_state.available_resources_per_node()
    return free


@dataclass(frozen=True)
class Holder:
    """A Ray job that holds resources of a cluster, by placement groups or actors.

    Attributes:
        job: Ray's id of the job.
        submission: the id of a submitted job; None for other drivers.
        run: the run that the job trains; None if the job's metadata names no run.
        driver: the address of the driver's node, and the driver's process id on it.
        resources: amounts by resource name.
    """

    job: str
    submission: str | None
    run: str | None
    command: str
    driver: str
    resources: Mapping[str, float]


@dataclass(frozen=True)
class Reserved:
    """Resources of a node that a Ray job has reserved.

    Attributes:
        job: Ray's id of the job.
        submission: the id of a submitted job; None for other drivers.
        node: the id of the node.
        is_bundle: True for a bundle of a placement group, False for an actor.
    """

    job: str
    submission: str | None
    node: str
    resources: Mapping[str, float]
    is_bundle: bool


def reserved_resources() -> list[Reserved]:
    """Return what placement groups and actors have reserved on the nodes of the cluster."""
    return _reserved(_job_table())


def _job_table() -> dict[str, Any]:
    accessor = ray_state.state._connect_and_get_accessor()
    jobs = accessor.get_job_table(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True
    )
    return {job.job_id.hex(): job for job in map(gcs_pb2.JobTableData.FromString, jobs)}


def _reserved(jobs: Mapping[str, Any]) -> list[Reserved]:
    accessor = ray_state.state._connect_and_get_accessor()
    found: list[tuple[str, bytes, Mapping[str, float], bool]] = []
    for data in accessor.get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(data)
        if group.state != gcs_pb2.PlacementGroupTableData.REMOVED:
            job = group.creator_job_id.hex()
            found += [(job, b.node_id, dict(b.unit_resources), True) for b in group.bundles]
    for data in accessor.get_actor_table(None, "ALIVE"):
        actor = gcs_pb2.ActorTableData.FromString(data)
        if not actor.placement_group_id:  # otherwise its group was counted above
            resources = dict(actor.required_resources)
            found.append((actor.job_id.hex(), actor.address.node_id, resources, False))
    return [
        Reserved(
            job,
            jobs[job].config.metadata.get("job_submission_id") if job in jobs else None,
            node.hex(),
            resources,
            is_bundle,
        )
        for job, node, resources, is_bundle in found
        if node  # Ray has placed it
    ]


def holders() -> list[Holder]:
    """Return the jobs that hold resources of the cluster that this process has joined."""
    jobs, held = _job_table(), dict[str, Counter[str]]()
    for one in _reserved(jobs):
        held.setdefault(one.job, Counter()).update(one.resources)
    return [
        Holder(
            job=job,
            submission=told.config.metadata.get("job_submission_id"),
            run=told.config.metadata.get("run"),
            command=told.entrypoint,
            driver=f"{told.driver_address.ip_address}, process {told.driver_pid}",
            resources=resources,
        )
        for job, told in jobs.items()
        if (resources := {name: n for name, n in held.get(job, {}).items() if n > 0})
    ]


def draining_nodes() -> dict[str, int]:
    """Return the deadline of each draining node, in ms since the epoch; 0 means no deadline."""
    leaving: dict[str, int] = ray_state.state.get_draining_nodes()
    return leaving


def read_authentication_mode() -> None:
    """Make Ray read its authentication mode from the environment again.

    By default, Ray reads the mode only when it is imported.
    """
    if get_authentication_mode() != AuthenticationMode.TOKEN:
        Config.initialize("")


def forget_token() -> None:
    """Make Ray read the token again instead of using its cached copy."""
    AuthenticationTokenLoader.instance().reset_cache()


def has_token() -> bool:
    """Return whether a token exists now.

    Raises:
        ray.exceptions.AuthenticationError: the token cannot be read.
    """
    forget_token()
    return bool(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))
