"""Checks on the head node of a cluster, made before any file is sent there.

One job makes all checks: access of other users to the session folder, the versions of Python and of
packages, and the state of some folders. The job prints the results into a log file inside the
session folder. Users who can enter that folder can forge the log, so the exit code reports whether
the folder is open. If it is open, the results in the log are only a hint.

This file needs only Python's standard library and `folder_access`, because `cluster.ray.exposure`
sends the text of both files to the head node, which runs it there.
"""

import hashlib
import json
import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from cluster.ray.folder_access import access_by_others, write_problem

CLOSED, OPEN = 0, 3  # exit codes: the session folder is closed or open to others
PACKAGES = ("transloom", "cluster", "trainer", "model", "data_pipeline", "foundation")
ASKED_VERSIONS = ("transloom", "ray", "torch", "deepspeed")
# Names without code that jobs execute. A wheel has the recipes inside a package, a checkout has
# them outside.
EXCLUDED_NAMES = frozenset({"__pycache__", "recipes"})
COMPILED = ".so"


def package_files(installation: Path) -> list[tuple[str, Path]]:
    """Return the files of our packages in an installation, sorted by name relative to it."""
    found = []
    for package in PACKAGES:
        for folder, folders, names in os.walk(installation / package):
            folders[:] = [f for f in folders if f not in EXCLUDED_NAMES and not f.startswith(".")]
            for name in names:
                if not name.endswith(".pyc") and not name.startswith("."):
                    path = Path(folder) / name
                    found.append((path.relative_to(installation).as_posix(), path))
    return sorted(found)


def digest_of(installation: Path) -> str:
    """Return a digest of the names and contents of our packages' files.

    Compiled modules are excluded: they differ between machines or may be missing, without effect on
    results.
    """
    state = hashlib.sha256()
    for name, path in package_files(installation):
        if name.endswith(COMPILED):
            continue
        content = path.read_bytes()
        state.update(f"{name}\0{len(content)}\0".encode() + content)
    return state.hexdigest()


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
