"""Doors of a cluster that stand open to other people, found before a run goes there.

- Its head answers without a token, as it does after `ray start` without one (Ray 2.60.0): whoever
  reaches its ports runs code as its owner.
- Other users of a node may enter the folder in which Ray keeps its session and which it opens to
  everybody (mode 0777): they can replace packages, sockets and log files there.

A driver looks at its own node. A client, which is elsewhere, has a job without files look at the
head node, before it sends any: the answer is the job's exit code, since its log lies in the folder
that is looked at.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.errors import ClusterError
from cluster.ray import folder_access, private
from cluster.ray.folder_access import way_in
from cluster.ray.jobs import LOOK_KEY, check_address, explained, job_logs, submit, wait_for_job

CONNECT_TIMEOUT_SECONDS = 10.0

_NO_TOKEN = (
    "it answers without a token, so whoever reaches its ports can run code as its owner (`ray "
    "start` asks for none by itself: set RAY_AUTH_MODE=token and give every node the token before "
    "it)"
)
_FOLDER_REMEDY = (
    "Ray lets everybody write into its session folder, so they can make it run their code (set "
    "RAY_TMPDIR to a folder of mode 0700 before `ray start`, on every node)"
)


def open_doors_here(needs_token: bool) -> list[str]:
    """What is open of the cluster that this process has joined, as seen from its node.

    Args:
        needs_token: whether the head asks for a token.
    """
    doors = [] if needs_token else [_NO_TOKEN]
    if way := way_in(private.session_folder()):
        doors.append(f"{way}, and {_FOLDER_REMEDY}")
    return doors


def open_doors_at(dashboard: str) -> list[str]:
    """What is open of the cluster that takes jobs there, as seen from its head node.

    Raises:
        ClusterError: it is no dashboard's address, cannot be reached, or refuses the token.
    """
    check_address(dashboard)
    doors = [_NO_TOKEN] if _lists_jobs_to_anyone(dashboard) else []
    return [*doors, *_folder_of_head(dashboard)]


def warning(cluster: str, doors: Sequence[str]) -> str:
    """One paragraph on what is open of a cluster, and what closes it."""
    return f"The Ray cluster at {cluster} is open to others: {'; and '.join(doors)}"


def tell(warning: str, *, strict: bool, notice: Callable[[str], None]) -> None:
    """Tell that a cluster is open.

    Raises:
        ClusterError: `strict` refuses such a cluster.
    """
    if strict:
        raise ClusterError(f"{warning}. It is refused because of --strict")
    notice(warning)


def _lists_jobs_to_anyone(dashboard: str) -> bool:
    with explained(dashboard):
        try:
            with urllib.request.urlopen(
                f"{dashboard.rstrip('/')}/api/jobs/", timeout=CONNECT_TIMEOUT_SECONDS
            ) as answer:
                return isinstance(json.load(answer), list)
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return False
        except ValueError:  # a page, such as that of a proxy which asks for a password
            return False


def _folder_of_head(dashboard: str) -> list[str]:
    program = Path(folder_access.__file__).read_text(encoding="utf-8")
    # -I: no code from the folder in which a job starts, nor from PYTHONPATH.
    job_id = submit(
        ["python3", "-I", "-c", program],
        address=dashboard,
        folder=Path("/"),
        metadata={LOOK_KEY: "who else can enter the session folder"},
    )
    job = wait_for_job(dashboard, job_id)
    said = "".join(job_logs(dashboard, job_id)).strip().splitlines()
    if job.exit_code == folder_access.CLOSED:
        return []
    if job.exit_code == folder_access.OPEN and said:
        return [f"on its head node {said[-1]}, and {_FOLDER_REMEDY}"]
    return [
        f"whether others can enter its session folder could not be found out ({job.message}); "
        f"{_FOLDER_REMEDY}"
    ]
