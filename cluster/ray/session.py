"""A Ray session: either an embedded Ray on this machine, or a connection to a running cluster.

In both cases

  - Ray's token authentication is on (see `cluster.ray.authentication`),
  - every worker process imports this program's packages, whatever is in the driver's directory,
  - output of workers goes to Ray's log files, and Ray's messages about workers go to this
    program's log; neither goes to the driver's terminal,
  - leaving the session stops only what the session has started.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc  # type: ignore[import-untyped]
import ray

from cluster.errors import ClusterError, HeadLostError
from cluster.packages import import_own_packages
from cluster.ray import private
from cluster.ray.authentication import REMEDY, enable_authentication
from cluster.ray.embedded import EmbeddedRay, embedded_ray, initialise
from cluster.ray.open_endpoints import exposure_of_joined_cluster, warning
from cluster.ray.private import IGNORE_UNREAD_ERRORS
from foundation.environment import environment
from foundation.untrusted_text import logger_of

CONNECT_TIMEOUT_SECONDS = 10.0

logger = logger_of(__name__)


@contextmanager
def ray_session(
    address: str | None,
    embedded: EmbeddedRay | None = None,
    report_open_endpoints: Callable[[str], None] = logger.warning,
) -> Iterator[None]:
    """Start an embedded Ray (`address` None) or join a cluster, and leave it at the end.

    Args:
        address: `HOST:PORT` of a cluster's head as seen from one of its nodes, or `auto` for
            the cluster of this machine or of this Ray job.
        embedded: settings of the embedded Ray.
        report_open_endpoints: called once with a warning if the joined cluster is open to other
            users; an exception from it ends the session.

    Raises:
        ClusterError: the cluster cannot be reached, or refuses the token.
        EmbeddedRayError: the embedded Ray did not start, or is lost; it has been cleaned up.
    """
    assert not ray.is_initialized(), "one session at a time"
    import_own_packages()
    with (
        private.redirect_ray_messages(lambda line: logger.info("Ray: %s", line)),
        embedded_ray(embedded or EmbeddedRay())
        if address is None
        else _joined(address, report_open_endpoints),
        # Without this, Ray would print "Unhandled error" for the results of abandoned actors, which
        # are never read. Other failures of actors are noticed when their results are read.
        environment({IGNORE_UNREAD_ERRORS: "1"}),
    ):
        yield


@contextmanager
def _joined(address: str, report_open_endpoints: Callable[[str], None]) -> Iterator[None]:
    head_lost = False
    try:
        with private.sigterm_handler_kept():
            head, needs_token = _join(address)
        if endpoints := exposure_of_joined_cluster(needs_token):
            report_open_endpoints(warning(head, endpoints))
        yield
    except HeadLostError:
        head_lost = True
        raise
    finally:
        if not head_lost:  # with a lost head, Ray would try to reach it for half a minute
            ray.shutdown()


def find_head(address: str) -> tuple[str, bool]:
    """Find the head of a cluster; return its HOST:PORT, and whether it requires a token.

    Raises:
        ClusterError: no head answers, or it refuses this user's token.
    """
    if "://" in address:
        raise ClusterError(
            f"{address} is a web address, but a driver needs the head's HOST:PORT (usually port "
            "6379) or auto, and must run on one of the cluster's nodes. From other machines, use "
            "`transloom submit RECIPE --address http://HOST:8265`"
        )
    enable_authentication(create_token=False)
    try:
        head = private.address_of_head(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise ClusterError(
            f"No Ray cluster was found at {address}: {str(error).rstrip('. ')}. Start a cluster "
            "with `ray start --head`, or give the HOST:PORT that this command printed. Without "
            "--address, transloom starts Ray itself"
        ) from error
    return head, _check_head(head, address)


def _join(address: str) -> tuple[str, bool]:
    """Join a cluster; return the result of `find_head`."""
    head, needs_token = find_head(address)
    try:
        initialise(address=head)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"The Ray cluster at {head} answers, but cannot be joined from here: "
            f"{error.__cause__ or error}. The driver must run on one of the cluster's nodes, with "
            "the same versions of Python and Ray. From other machines, use `transloom submit`"
        ) from error
    return head, needs_token


def _check_head(head: str, address: str) -> bool:
    """Check that a head answers; return whether it requires a token.

    Args:
        head: HOST:PORT of the head.
        address: the address that the user has given, for messages.

    Raises:
        ClusterError: the head does not answer, or refuses the token.
    """
    named = head if head == address else f"{address}, which is {head}"
    try:
        private.ask_head(head, CONNECT_TIMEOUT_SECONDS)
        return not private.answers_without_token(head, CONNECT_TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise ClusterError(
                f"The Ray cluster at {named} refuses this user's token: {REMEDY}"
            ) from error
        raise ClusterError(
            f"No Ray cluster answers at {named} ({error.code().name.lower()}). Compare this "
            "address with the one that `ray start --head` printed (by default port 6379, not the "
            "dashboard's 8265), and check for a firewall between the machines"
        ) from error
