"""Checks on the head node of a cluster, made before any file is sent there.

One job makes all checks: access of other users to the session folder, the versions of Python and of
packages, and the state of some folders. The job prints the results into a log file inside the
session folder. Users who can enter that folder can forge the log, so the exit code reports whether
the folder is open. If it is open, the results in the log are only a hint.

This file needs only Python's standard library, `folder_access` and `package_files`, because
`cluster.ray.exposure` sends the text of the three files to the head node, which runs it there.
"""

import json
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from cluster.package_files import digest_of
from cluster.ray.folder_access import access_by_others, write_problem

CLOSED, OPEN = 0, 3  # exit codes: the session folder is closed or open to others
ASKED_VERSIONS = ("transloom", "ray", "torch", "deepspeed")


def facts(folders: list[str]) -> dict[str, object]:
    """Return what this machine has installed, and which of `folders` it can use.

    The result has the versions of Python and of the packages, and the digest of the transloom
    source. For each folder, it states whether the folder exists and, if it cannot be written, the
    problem.
    """
    spec = find_spec("cluster")  # does not import the package
    versions: dict[str, str | None] = {}
    for name in ASKED_VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    place = Path(spec.origin).parent.parent if spec and spec.origin else None
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "versions": versions,
        "digest": digest_of(place) if place else None,
        "folders": {folder: Path(folder).is_dir() for folder in folders},
        "unwritable": {
            folder: problem for folder in folders if (problem := write_problem(Path(folder)))
        },
    }


def main(folders: list[str]) -> None:
    """Check the node on which this Ray job runs, print the facts, and exit with the access code."""
    # Ray redirects a job's output to SESSION/logs/job-driver-ID.log.
    session = Path("/proc/self/fd/1").readlink().parent.parent
    way = access_by_others(session)
    print(json.dumps({"access_by_others": way, **facts(folders)}), flush=True)
    sys.exit(OPEN if way else CLOSED)


if __name__ == "__main__":
    main(sys.argv[1:])
