"""Collect the facts of a cluster's nodes that matter for a run, and report problems.

a file in the run folder ──▶ a probe on each node adds a file of its node ──▶ NodeFacts
    ──compare with this process──▶ problems, a line each
"""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster import package_files
from cluster.node_check.clocks import RoundTrip, offset_of
from cluster.node_check.verdicts import CLOCK_WARNING_SECONDS
from cluster.packages import INSTALLATION
from cluster.planning import node_probe
from cluster.planning.problem import PlanProblem
from cluster.ray import folder_access
from cluster.ray.cluster_view import Node
from cluster.ray.folder_access import existing_part

# Seconds for a node to start a process and import torch, as it will do for a rank.
ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class NodeFacts:
    """Facts that a node reported, relative to this machine.

    Attributes:
        code: sha256 of the node's transloom, or None if there is no transloom at this machine's
            path.
        folder: problem with the node's view of the run folder, or None without a problem.
        manifest: sha256 of the dataset's manifest on the node, or "!" and the reason why the
            manifest cannot be read; None if the dataset is remote.
        interface: network interface of ranks, or "!" and the reason why none is suitable.
        skew_seconds: time by which the node's clock is ahead of this machine's clock.
        skew_error_seconds: maximum error of `skew_seconds`.
    """

    name: str
    python: str
    versions: Mapping[str, str | None]
    code: str | None
    folder: str | None = None
    manifest: str | None = None
    interface: str = ""
    skew_seconds: float = 0.0
    skew_error_seconds: float = 0.0


def ask_nodes(
    nodes: Iterable[Node], run: Path, manifest: Path | None, *, gpu: bool
) -> tuple[list[NodeFacts], list[PlanProblem]]:
    """Query all nodes in parallel; return their facts, and a problem for each silent node.

    Args:
        manifest: the file of the dataset's manifest, or None if the dataset is remote.
        gpu: whether ranks need a GPU.
    """
    folder = existing_part(run)
    left = f".transloom-plan-{secrets.token_hex(4)}"
    asked = {
        "installation": str(INSTALLATION),
        "folder": str(folder),
        "left": left,
        "manifest": None if manifest is None else str(manifest),
        "gpu": gpu,
    }
    probes: list[tuple[Node, Any, Any]] = []
    try:
        with suppress(OSError):  # without the file, each node reports that it cannot read the file
            (folder / left).touch()
        for node in nodes:
            with pickled_by_value():
                probe = _started(node)
            own = {"address": node.name.split()[0], "answer": f"{left}-{node.id}"}
            probes.append((node, probe, probe.collect.remote(asked | own)))
        deadline = time.monotonic() + ANSWER_SECONDS
        found: list[NodeFacts] = []
        problems: list[PlanProblem] = []
        for node, probe, looked in probes:
            try:
                said = ray.get(looked, timeout=max(1.0, deadline - time.monotonic()))
                found.append(_facts(node, said, probe, folder / f"{left}-{node.id}"))
            except (RayError, GetTimeoutError) as error:
                problems.append(_unresponsive_problem(node, error))
        return found, problems
    finally:
        for _, probe, _ in probes:
            ray.kill(probe)
        for file in folder.glob(f"{left}*"):
            file.unlink(missing_ok=True)


@contextmanager
def pickled_by_value() -> Iterator[None]:
    """Pickle the probe with all of its code, for nodes that may not have it installed."""
    modules = (node_probe, package_files, folder_access)
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _started(node: Node) -> Any:
    actor: Any = ray.remote(num_cpus=0)(node_probe.NodeProbe)
    return actor.options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
    ).remote()


def _facts(node: Node, said: dict[str, Any], probe: Any, answer: Path) -> NodeFacts:
    asked = time.time()
    node_time = ray.get(probe.clock.remote(), timeout=ANSWER_SECONDS)
    offset = offset_of([RoundTrip(asked, node_time, time.time())])
    if said["folder"] is None and not answer.exists():
        said["folder"] = "files that the node writes there are not visible on this machine"
    return NodeFacts(
        node.name, **said, skew_seconds=offset.seconds, skew_error_seconds=offset.error_seconds
    )


def _unresponsive_problem(node: Node, error: Exception) -> PlanProblem:
    reason = str(error).strip().splitlines()
    return PlanProblem(
        "node",
        f"Node {node.name} has not answered within {ANSWER_SECONDS:.0f} s "
        f"({reason[-1] if reason else type(error).__name__}), so no rank can start there. Check "
        "the Ray logs of this node, or remove it from the cluster",
    )


def node_problems(
    node: NodeFacts, here: NodeFacts, run: Path, manifest: str | None, *, alone: bool
) -> list[PlanProblem]:
    """Return the problems of a node.

    Args:
        here: the facts of this machine.
        manifest: expected sha256 of the dataset's manifest, or None if it is not known.
        alone: whether this is the only node, so that ranks need no network.
    """
    lines = [*_version_lines(node, here)]
    if node.folder is not None:
        lines.append(
            f"does not have the run's folder {run} ({node.folder}). Use --run PATH to name a "
            "folder on storage that all nodes see at the same path"
        )
    if node.manifest is not None and manifest is not None and node.manifest != manifest:
        expected = f"expected manifest {manifest[:16]}…"
        if node.manifest.startswith("!"):
            reason = node.manifest.removeprefix("!")
            problem = f"cannot read the dataset's manifest: {reason} ({expected})"
        else:
            problem = f"has another dataset: its manifest is {node.manifest[:16]}…, {expected}"
        lines.append(
            f"{problem}. Put the dataset on storage that all nodes see at the same path, or set "
            "data.dataset to the URL of a copy"
        )
    if node.interface.startswith("!") and not alone and node.code is not None:
        lines.append(f"has no network interface for ranks: {node.interface.removeprefix('!')}")
    problems = [PlanProblem("node", f"Node {node.name} {line}") for line in lines]
    skew = abs(node.skew_seconds) - node.skew_error_seconds
    if skew > CLOCK_WARNING_SECONDS:
        way = "ahead of" if node.skew_seconds > 0 else "behind"
        problems.append(
            PlanProblem(
                "node",
                f"The clock of node {node.name} is {skew:.1f} s {way} this machine's clock. A "
                f"difference of more than {CLOCK_WARNING_SECONDS:g} s distorts times in records "
                "and the deadline of a drained node. Synchronize the clocks, for example with "
                "chrony",
                refuses=False,
            )
        )
    return problems


def _version_lines(node: NodeFacts, here: NodeFacts) -> Iterable[str]:
    if _minor(node.python) != _minor(here.python):
        yield (
            f"has Python {node.python}, but this machine has {here.python}. The first two numbers "
            "must be equal. Start Ray on the node from an environment with the same Python"
        )
    for name, version in here.versions.items():
        theirs = node.versions.get(name)
        if theirs != version:
            yield (
                f"has {_versioned(name, theirs)}, but this machine has "
                f"{_versioned(name, version)}. Install the same version on all nodes, from the "
                "same lock file"
            )
    if node.code is None:
        yield (
            f"has no transloom at {INSTALLATION}. Install transloom at the same path on all nodes, "
            "or on storage that they share"
        )
    elif node.code != here.code:
        yield (
            f"has another transloom at {INSTALLATION} (sources {node.code[:12]}…) than this "
            f"machine (sources {str(here.code)[:12]}…). Install the same version on all nodes"
        )


def _versioned(name: str, version: str | None) -> str:
    return f"{name} {version}" if version else f"no {name}"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def facts_of_this_machine() -> NodeFacts:
    """Return the facts of this machine, to which those of every node are compared."""
    return NodeFacts("this machine", **node_probe.software_of(INSTALLATION))
