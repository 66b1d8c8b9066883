"""Endpoints of a cluster that other users can reach, and the warning about them.

  - The head answers without a token, as it does after a `ray start` without a token (Ray 2.60.0).
    Anyone who reaches its ports runs code as its owner.
  - Other users of a node may enter the folder of Ray's session, which Ray makes writable for all
    users (mode 0777). They can replace packages, sockets and log files there.

A driver checks its node directly. A client is on another machine and runs a job: see `exposure`.
"""

from collections.abc import Callable, Sequence

from cluster.errors import ClusterError
from cluster.ray import private
from cluster.ray.folder_access import access_by_others

NO_TOKEN = (
    "it answers without a token, so anyone who reaches its ports can run code as its owner (by "
    "default, `ray start` requires no token: before `ray start`, set RAY_AUTH_MODE=token and give "
    "every node the token)"
)
FOLDER_REMEDY = (
    "Ray lets all users write into its session folder, so other users can make Ray run their code "
    "(before `ray start`, set RAY_TMPDIR to a folder of mode 0700 on every node)"
)


def exposure_of_joined_cluster(needs_token: bool) -> list[str]:
    """Return descriptions of the joined cluster's open endpoints, as seen from this process's node.

    Args:
        needs_token: whether the head requires a token.
    """
    endpoints = [] if needs_token else [NO_TOKEN]
    if way := access_by_others(private.session_folder()):
        endpoints.append(f"{way}, and {FOLDER_REMEDY}")
    return endpoints


def warning(cluster: str, endpoints: Sequence[str]) -> str:
    """Return a paragraph that describes a cluster's open endpoints and the remedies."""
    return f"The Ray cluster at {cluster} is open to other users: {'; and '.join(endpoints)}"


def report_exposure(warning: str, *, strict: bool, notice: Callable[[str], None]) -> None:
    """Report that a cluster is open to other users.

    Args:
        warning: the description of the cluster's open endpoints.
        strict: raise an error instead of reporting.
        notice: called with the warning.

    Raises:
        ClusterError: `strict` is set.
    """
    if strict:
        raise ClusterError(f"{warning}. The cluster is refused because of --strict")
    notice(warning)
