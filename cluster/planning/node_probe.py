"""Probe of one node: versions, run folder, dataset, network interface and clock.

The probe needs only Python's standard library. Its code, including `package_files` and
`folder_access`, is sent by value. A node without transloom can therefore run the probe, which
reports that transloom is missing. The probe creates one file in the run folder, next to the file of
the process that queries the nodes. That process removes both files.
"""

import hashlib
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from cluster.package_files import digest_of, package_files
from cluster.ray.folder_access import answer_probe

DISTRIBUTIONS = ("torch", "deepspeed", "ray")


class NodeProbe:
    """Actor that answers the queries about its node."""

    def clock(self) -> float:
        """Return the node's time, in seconds since the epoch."""
        return time.time()

    def collect(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the facts of this node.

        Args:
            asked: the query, with the following keys:
                `installation`: path of transloom;
                `folder`: the run folder, or the existing part of its path;
                `left`: name of the file that the asking process created there;
                `answer`: name of the file that this node creates there;
                `manifest`: path of the dataset's manifest, or None if it is remote;
                `address`: address by which other nodes reach this one;
                `gpu`: whether ranks need a GPU.
        """
        return software_of(Path(asked["installation"])) | {
            "folder": answer_probe(Path(asked["folder"]), asked["left"], asked["answer"]),
            "manifest": _manifest(asked["manifest"]),
            "interface": _interface(asked["installation"], asked["address"], asked["gpu"]),
        }


def software_of(installation: Path) -> dict[str, Any]:
    """Return this machine's versions and transloom, by the names of the fields of `NodeFacts`."""
    return {
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in DISTRIBUTIONS},
        "code": code_of(installation),
    }


def code_of(installation: Path) -> str | None:
    """Return the digest of transloom's files, as in `submit`, or None if there are no files."""
    return digest_of(installation) if package_files(installation) else None


def version_of(name: str) -> str | None:
    """Return the version of an installed distribution, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _manifest(path: str | None) -> str | None:
    """Return the sha256 of the dataset's manifest, or "!" followed by the reason for a failure."""
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        return f"!{error.strerror or error}"


def _interface(installation: str, address: str, gpu: bool) -> str:
    """Return the network interface for ranks, or "!" followed by the reason for a failure."""
    sys.path.insert(0, installation)
    try:
        from trainer.process.distributed import network_interface
        from trainer.process.placement import Placement

        placement = Placement(world_size=2, device="cuda" if gpu else "cpu", node_address=address)
        variables = network_interface(placement)
    except Exception as error:  # report any failure, such as a torch that fails to import
        return f"!{error}"
    finally:
        sys.path.remove(installation)
    return next(iter(variables.values()), "that of the environment")
