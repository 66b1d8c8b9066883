"""The private names of Ray that we use, all of them, as they are in Ray 2.60.0.

Each stands behind a function that says what it is for. What is replaced in Ray is put back when the
context manager that replaced it ends. Before another version of Ray is pinned, this file is read
beside it; `tests/cluster/ray/` fails where one of them has moved.
"""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import ray_constants
from ray._private import services as ray_services
from ray._private import state as ray_state
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import (  # type: ignore[attr-defined]
    AuthenticationMode,
    AuthenticationTokenLoader,
    Config,
    get_authentication_mode,
)
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.job_config import JobConfig

# What Ray looks for each time before it prints the error of an answer that nobody takes.
IGNORE_UNREAD_ERRORS = "RAY_IGNORE_UNHANDLED_ERRORS"
# Loggers of Ray's Jobs API that say on the terminal what nobody asked for.
TALKATIVE_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_START_LOOK_SECONDS = 0.5


def job_config(first_on_path: str) -> JobConfig:
    """Ray puts the driver's script folder and current folder at the head of ``sys.path`` of every
    worker. Here ``first_on_path`` takes their place, so that a worker imports our packages even
    if such a folder, or a Ray job's working directory, has some of the same names.
    """

    class OwnFolderFirst(JobConfig):
        def _serialize(self) -> bytes:
            self._py_driver_sys_path = [first_on_path]
            serialized: bytes = super()._serialize()
            return serialized

    return OwnFolderFirst()


def niceness_of_workers(niceness: int) -> dict[str, int]:
    """For ``ray.init(_system_config=…)``; it goes before RAY_worker_niceness."""
    return {"worker_niceness": niceness}


@contextmanager
def news_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Ray prints news ("a worker died") on the driver's standard output, where it would spoil
    answers in JSON; ``log_to_driver=False`` does not silence it."""

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
    """Ray sets handlers of its own, in Python and below; whoever listened listens on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    set_by_ray = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    # Below Python, Ray replaces the handler when it connects, and puts the default in its place
    # when it disconnects, long before it has shut down: a SIGTERM then would be the end.
    disabled = ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    try:
        yield
    finally:
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = disabled
        ray_utils.set_sigterm_handler = set_by_ray
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def node_may_be_late(still_starts: Callable[[], bool]) -> Iterator[None]:
    """Ray gives a node that it starts 30 s until its head knows it; here it has as long as it is
    said to be starting."""
    ask = ray_services.get_node

    def get_node(head: str, node: str) -> Any:
        while True:
            try:
                return ask(head, node)
            except RuntimeError:  # the head does not know it
                if not still_starts():
                    raise
            time.sleep(_START_LOOK_SECONDS)

    ray_services.get_node = get_node
    try:
        yield
    finally:
        ray_services.get_node = ask


def started_processes() -> dict[str, list[subprocess.Popen[bytes]]] | None:
    """What ``ray.init`` has started here and not ended itself, by kind ("raylet"); None where this
    process has started no Ray."""
    node = ray_worker._global_node  # None outside a session
    if node is None or not node.is_head():
        return None
    return {kind: [info.process for info in infos] for kind, infos in node.all_processes.items()}


def machine_cpus() -> int:
    """The CPUs that a Ray has which is told nothing."""
    return int(ray_utils.get_num_cpus(override_docker_cpu_warning=True))


def address_of_head(address: str) -> str:
    """``HOST:PORT`` of the head that is meant, ``auto`` too.

    Raises ConnectionError, ValueError or OSError where there is none.
    """
    head: str = ray_services.canonicalize_bootstrap_address_or_die(address)
    return head


def ask_head(head: str, timeout_seconds: float) -> None:
    """One question to the head, as Ray itself tries for minutes when nobody answers, and for
    20 seconds when the token is refused. Raises grpc.RpcError."""
    with init_grpc_channel(head) as channel:
        NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=timeout_seconds)


def free_resources() -> dict[str, dict[str, float]]:
    """What each node has to give away, by the node's id."""
    free: dict[str, dict[str, float]] = ray_state.available_resources_per_node()
    return free


def draining_nodes() -> dict[str, int]:
    """Deadlines of the nodes that are being drained, in milliseconds since the epoch; 0 is none."""
    leaving: dict[str, int] = ray_state.state.get_draining_nodes()
    return leaving


def read_authentication_mode() -> None:
    """Ray read the environment when it was imported; here it reads it again."""
    if get_authentication_mode() != AuthenticationMode.TOKEN:
        Config.initialize("")


def forget_token() -> None:
    """Ray keeps the token that it has read; after this it reads it again."""
    AuthenticationTokenLoader.instance().reset_cache()


def has_token() -> bool:
    """Whether there is a token, as of now. Raises ray.exceptions.AuthenticationError for one that
    cannot be read."""
    forget_token()
    return bool(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))
