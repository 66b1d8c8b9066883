"""Doors of a cluster that stand open to other people, found before a run goes there.

- Its head answers without a token, as it does after `ray start` without one (Ray 2.60.0): whoever
  reaches its ports runs code as its owner.
- Other users of a node may enter the folder in which Ray keeps its session and which it opens to
  everybody (mode 0777): they can replace packages, sockets and log files there.

A driver looks at its own node. A client, which is elsewhere, has a job without files look at the
head node, before it sends any; see `head_look`. The same job finds out what is installed there.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.errors import ClusterError
from cluster.ray import folder_access, head_probe, private
from cluster.ray.folder_access import access_by_others
from cluster.ray.job_command import HEAD_PYTHON
from cluster.ray.jobs import (
    PROBE_KEY,
    check_address,
    job_logs,
    jobs_api_errors,
    submit,
    wait_for_job,
)
from foundation.strict_json import parse_object

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


def exposure_of_joined_cluster(needs_token: bool) -> list[str]:
    """What is open of the cluster that this process has joined, as seen from its node.

    Args:
        needs_token: whether the head asks for a token.
    """
    endpoints = [] if needs_token else [_NO_TOKEN]
    if way := access_by_others(private.session_folder()):
        endpoints.append(f"{way}, and {_FOLDER_REMEDY}")
    return endpoints


@dataclass(frozen=True)
class HeadProbe:
    """What a client has found out about a cluster and its head node.

    Attributes:
        doors: what is open to other people.
        python: the version of the Python that runs Ray there; None if nothing could be found out.
        versions: of packages that are installed there; None for one that is not.
        digest: of the installed transloom (`head_probe.digest_of`); None if there is none.
        folders: whether each folder that was asked about is there.
        unwritable: why folders cannot be written there, for those that cannot.
    """

    endpoints: tuple[str, ...]
    python: str | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    digest: str | None = None
    folders: Mapping[str, bool] = field(default_factory=dict)
    unwritable: Mapping[str, str] = field(default_factory=dict)


def exposure_of_dashboard(dashboard: str) -> list[str]:
    """What is open of the cluster that takes jobs there, as seen from its head node.

    Raises:
        ClusterError: it is no dashboard's address, cannot be reached, or refuses the token.
    """
    return list(ClusterExposure(dashboard).wait().endpoints)


class ClusterExposure:
    """A check of the cluster at an address, and of its head node, by one job without files.

    It begins at once, and the head takes seconds for the answer. `wait` raises its errors.
    """

    def __init__(self, dashboard: str, folders: Sequence[str] = ()) -> None:
        """
        Args:
            folders: asked about.
        """
        self.dashboard = dashboard
        self._error: ClusterError | None = None
        try:
            check_address(dashboard)
            self._endpoints = [_NO_TOKEN] if _lists_jobs_to_anyone(dashboard) else []
            # -I: no code from the folder in which a job starts, nor from PYTHONPATH.
            self._job_id = submit(
                [HEAD_PYTHON, "-I", "-c", probe_program(), *folders],
                address=dashboard,
                folder=Path("/"),
                metadata={PROBE_KEY: "who else can enter the session folder, what is installed"},
            )
        except ClusterError as error:
            self._error = error

    def wait(self) -> HeadProbe:
        """Wait for what is found out.

        Raises:
            ClusterError: it is no dashboard's address, cannot be reached, or refuses the token.
        """
        if self._error:
            raise self._error
        job = wait_for_job(self.dashboard, self._job_id)
        said = "".join(job_logs(self.dashboard, self._job_id)).strip().splitlines()
        endpoints = list(self._endpoints)
        try:
            found = parse_object(said[-1].encode() if said else b"")
            seen = HeadProbe(
                (),
                str(found["python"]),
                dict(found["versions"]),
                found["digest"],
                dict(found["folders"]),
                dict(found["unwritable"]),
            )
            way = found["access_by_others"]
        except (ValueError, TypeError, KeyError):
            seen, way = HeadProbe(()), None
        if job.exit_code == head_probe.OPEN and way:
            endpoints.append(f"on its head node {way}, and {_FOLDER_REMEDY}")
        elif job.exit_code != head_probe.CLOSED:
            endpoints.append(
                "whether others can enter its session folder could not be found out "
                f"({job.message}); {_FOLDER_REMEDY}"
            )
        return replace(seen, endpoints=tuple(endpoints))


def probe_program() -> str:
    """The program of the look: the text of two files, in the order of their imports."""
    first, second = (
        Path(module.__file__ or "").read_text(encoding="utf-8")
        for module in (folder_access, head_probe)
    )
    return first + second.replace(_IMPORT_BETWEEN, "")


_IMPORT_BETWEEN = "from cluster.ray.folder_access import access_by_others, write_problem\n"


def warning(cluster: str, endpoints: Sequence[str]) -> str:
    """One paragraph on what is open of a cluster, and what closes it."""
    return f"The Ray cluster at {cluster} is open to others: {'; and '.join(endpoints)}"


def report_exposure(warning: str, *, strict: bool, notice: Callable[[str], None]) -> None:
    """Tell that a cluster is open.

    Raises:
        ClusterError: `strict` refuses such a cluster.
    """
    if strict:
        raise ClusterError(f"{warning}. It is refused because of --strict")
    notice(warning)


def _lists_jobs_to_anyone(dashboard: str) -> bool:
    with jobs_api_errors(dashboard):
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
