"""Find endpoints of a cluster that other users can reach, before a run is sent to the cluster.

A client is not on a node of the cluster. It therefore runs a job without files on the head node
before it sends any files; see `head_probe`. The same job reports the installed packages.
`open_endpoints` has the checks of a driver, and describes what open endpoints allow.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster import package_files
from cluster.errors import ClusterError
from cluster.ray import folder_access, head_probe
from cluster.ray.job_command import HEAD_PYTHON
from cluster.ray.jobs import (
    PROBE_KEY,
    check_address,
    job_logs,
    jobs_api_errors,
    submit,
    wait_for_job,
)
from cluster.ray.open_endpoints import FOLDER_REMEDY, NO_TOKEN
from foundation.file_model import parse_object

CONNECT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class HeadProbe:
    """Results of a client's checks of a cluster and its head node.

    Attributes:
        endpoints: descriptions of endpoints that are open to other users.
        python: version of the Python that runs Ray on the head node; None if the check failed.
        versions: version of each checked package on the head node; None for a missing package.
        digest: digest of transloom on the head node (`cluster.package_files`); None if transloom is
            missing there.
        folders: for each requested folder, whether it exists on the head node.
        unwritable: the reason for each folder that cannot be written on the head node.
    """

    endpoints: tuple[str, ...]
    python: str | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    digest: str | None = None
    folders: Mapping[str, bool] = field(default_factory=dict)
    unwritable: Mapping[str, str] = field(default_factory=dict)


class ClusterExposure:
    """Check of a cluster and its head node, made by one job without files.

    The check begins when this object is created, and takes seconds. `wait` raises its errors.
    """

    def __init__(self, dashboard: str, folders: Sequence[str] = ()) -> None:
        """Start the check.

        Args:
            dashboard: URL of the cluster's dashboard.
            folders: folders whose existence and writability the check reports.
        """
        self.dashboard = dashboard
        self._error: ClusterError | None = None
        try:
            check_address(dashboard)
            self._endpoints = [NO_TOKEN] if _lists_jobs_to_anyone(dashboard) else []
            # -I: import no code from the directory in which a job starts, nor from PYTHONPATH.
            self._job_id = submit(
                [HEAD_PYTHON, "-I", "-c", probe_program(), *folders],
                address=dashboard,
                folder=Path("/"),
                metadata={
                    PROBE_KEY: "access of other users to the session folder, installed packages"
                },
            )
        except ClusterError as error:
            self._error = error

    def wait(self) -> HeadProbe:
        """Wait for the results of the check.

        Raises:
            ClusterError: the URL is not that of a Ray dashboard, cannot be reached, or refuses the
                token.
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
            endpoints.append(f"on its head node {way}, and {FOLDER_REMEDY}")
        elif job.exit_code != head_probe.CLOSED:
            endpoints.append(
                "access of other users to its session folder could not be determined "
                f"({job.message}); {FOLDER_REMEDY}"
            )
        return replace(seen, endpoints=tuple(endpoints))


def probe_program() -> str:
    """Return the check's program: the sources of `head_probe` and of its imports."""
    program = ""
    for module in (folder_access, package_files, head_probe):
        text = Path(module.__file__ or "").read_text(encoding="utf-8")
        program += re.sub(r"^from cluster\..*\n", "", text, flags=re.MULTILINE)
    return program


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
        except ValueError:  # a web page instead of JSON, such as a proxy's login page
            return False
