"""What a head node lacks for a job, told before the job is sent.

Only what a look at the head has found out (`cluster.ray.head_look`) is judged: other nodes may lack
more, and say so when the job is there.
"""

from collections.abc import Callable
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.record import JobRequest
from cluster.planning.node_probe import version_of
from cluster.planning.versions import WATCHED
from cluster.ray.open_doors import HeadLook

PYTHONS = ((3, 11), (3, 13))  # the first and the last


def check_head(
    seen: HeadLook, request: JobRequest, address: str, notice: Callable[[str], None]
) -> None:
    """Check that the head node can run a job, as far as the look at it tells.

    Args:
        notice: told of versions that differ from those of this machine.

    Raises:
        ClusterError: it cannot.
    """
    head = f"The head node of {address}"
    if seen.python is None:  # nothing could be found out
        return
    if not PYTHONS[0] <= _minor(seen.python) <= PYTHONS[1]:
        first, last = (".".join(map(str, version)) for version in PYTHONS)
        raise ClusterError(
            f"{head} runs Ray with Python {seen.python}, and transloom needs {first} to {last}: "
            "start its Ray from such an environment"
        )
    if missing := [name for name in WATCHED if seen.versions.get(name) is None]:
        raise ClusterError(
            f"{head} has no {' and no '.join(missing)} in the environment of its Ray: install "
            "there what transloom needs, from the same lock, see docs/clusters.md"
        )
    if not any(seen.folders.values()):
        raise ClusterError(request.without_places(head))
    for folder in (request.run, str(Path(request.run).parent)):
        if problem := seen.unwritable.get(folder):
            raise ClusterError(
                f"{head} cannot write the run's folder {request.run}: {problem}. Name another "
                "folder with --run PATH, on storage that all nodes may write"
            )
    for name in WATCHED:
        here, there = version_of(name), seen.versions[name]
        if here != there:
            notice(
                f"{head} has {name} {there}, this machine {here or 'none'}: the run is computed "
                "with that of the nodes"
            )


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
