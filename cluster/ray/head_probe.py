"""What is found out on the head node of a cluster before any file of ours is sent there.

One job answers all: who else gets at the session folder, which Python and which packages are there,
and which folders. The log in which it answers lies in the folder that is looked at. So the exit
code says whether that is closed, and where it is open the rest is no more than a hint.

Needs Python's standard library and `folder_access` only: `cluster.ray.exposure` sends the text of
both files to the head node, which runs it there.
"""

import hashlib
import json
import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from cluster.ray.folder_access import access_by_others, write_problem

CLOSED, OPEN = 0, 3  # exit codes
PACKAGES = ("transloom", "cluster", "trainer", "model", "data_pipeline", "foundation")
ASKED_VERSIONS = ("transloom", "ray", "torch", "deepspeed")
# In a package, but no part of what a job runs: a checkout has its recipes elsewhere.
EXCLUDED_NAMES = frozenset({"__pycache__", "recipes"})
COMPILED = ".so"


def package_files(installation: Path) -> list[tuple[str, Path]]:
    """The files of our packages in an installation, by their names relative to it, in order."""
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
    """A digest over names and contents of our packages' files.

    Without what was compiled on each machine, or could not be: it gives the same results.
    """
    state = hashlib.sha256()
    for name, path in package_files(installation):
        if name.endswith(COMPILED):
            continue
        content = path.read_bytes()
        state.update(f"{name}\0{len(content)}\0".encode() + content)
    return state.hexdigest()


def facts(folders: list[str]) -> dict[str, object]:
    """Return what this machine and its Python have, and whether `folders` can be written."""
    spec = find_spec("cluster")  # imports nothing
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
    """Look at the node of the Ray job that this process is; exit with what was found."""
    # Ray lets a job print into SESSION/logs/job-driver-ID.log.
    session = Path("/proc/self/fd/1").readlink().parent.parent
    way = access_by_others(session)
    print(json.dumps({"access_by_others": way, **facts(folders)}), flush=True)
    sys.exit(OPEN if way else CLOSED)


if __name__ == "__main__":
    main(sys.argv[1:])
