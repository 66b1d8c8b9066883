"""Files of our packages in an installation, and the digest of their sources.

This file needs only Python's standard library, because its text is sent to nodes that may not have
transloom (`cluster.ray.exposure`).
"""

import hashlib
import os
from pathlib import Path

PACKAGES = ("transloom", "cluster", "trainer", "run_store", "model", "data_pipeline", "foundation")
# Directories that contain no code of jobs. A wheel has the recipes inside a package, a checkout has
# them outside.
EXCLUDED_NAMES = frozenset({"__pycache__", "recipes"})


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
    """Return a digest of the names and contents of our packages' files."""
    state = hashlib.sha256()
    for name, path in package_files(installation):
        content = path.read_bytes()
        state.update(f"{name}\0{len(content)}\0".encode() + content)
    return state.hexdigest()
