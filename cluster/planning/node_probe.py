"""What a node says of itself: versions, run folder, dataset, network interface, clock.

Needs Python's standard library only, and is sent by value with what it takes from `head_look`: so a
node without transloom answers too, and says just that. It writes one file beside the one that the
asking process has left in the run's folder; that process removes both.
"""

import hashlib
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from cluster.ray.head_probe import digest_of, package_files

DISTRIBUTIONS = ("torch", "deepspeed", "ray")


class NodeProbe:
    """Lives on a node for as long as it is asked."""

    def clock(self) -> float:
        """The node's time, in seconds since the epoch."""
        return time.time()

    def collect(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the node has.

        Args:
            asked: the `installation` of transloom, the `folder` of the run (or the part of its path
                that there is) with the name of a file that was `left` there and of the `answer`;
                the `manifest` of the dataset, None if it is remote; the `address` by which other
                nodes know this one; whether ranks need a `gpu`.
        """
        return {
            "python": platform.python_version(),
            "versions": {name: version_of(name) for name in DISTRIBUTIONS},
            "code": code_of(Path(asked["installation"])),
            "folder": _check_shared_folder(Path(asked["folder"]), asked["left"], asked["answer"]),
            "manifest": _manifest(asked["manifest"]),
            "interface": _interface(asked["installation"], asked["address"], asked["gpu"]),
        }


def code_of(installation: Path) -> str | None:
    """The digest of transloom's files there, as `submit` compares it; None if it has none."""
    return digest_of(installation) if package_files(installation) else None


def version_of(name: str) -> str | None:
    """The version of an installed distribution; None if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_shared_folder(folder: Path, left: str, answer: str) -> str | None:
    """What is wrong with the folder; None if it is the one that the asking process has."""
    try:
        (folder / left).read_bytes()
        (folder / answer).touch()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _manifest(path: str | None) -> str | None:
    """The sha256 of the dataset's manifest, or why it cannot be read, after an exclamation mark."""
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        return f"!{error.strerror or error}"


def _interface(installation: str, address: str, gpu: bool) -> str:
    """Which interface ranks would use, or why none, after an exclamation mark."""
    sys.path.insert(0, installation)
    try:
        from trainer.rank.distributed import network_interface
        from trainer.rank.placement import Placement

        placement = Placement(world_size=2, device="cuda" if gpu else "cpu", node_address=address)
        variables = network_interface(placement)
    except Exception as error:  # a torch that cannot be loaded, say: it is told
        return f"!{error}"
    finally:
        sys.path.remove(installation)
    return next(iter(variables.values()), "that of the environment")
