"""Which versions of what a run is computed with, here and on the nodes of a cluster."""

import re
from importlib import metadata

from cluster.planning.node_probe import version_of
from cluster.planning.problem import PlanProblem

# Packages whose insides are known here, so transloom asks for one version of them. Another one may
# train, and may not.
CHECKED_PACKAGES = ("torch", "deepspeed", "ray")
_EXACTLY = re.compile(r"(?P<name>[\w-]+)(\[[\w,-]+\])?==(?P<version>[\w.]+)$")


def package_problems() -> list[PlanProblem]:
    """Packages of this machine that are not of the versions that transloom was made for."""
    problems = []
    for name, wanted in _required().items():
        found = version_of(name)
        if found is None or _public(found) != wanted:
            problems.append(
                PlanProblem(
                    "versions",
                    f"{name} is {found or 'not installed'} here, and transloom was made for "
                    f"{wanted}. Install that one: pip install {name}=={wanted}",
                    refuses=found is None,
                )
            )
    return problems


def _public(version: str) -> str:
    """A version without the mark of its build, such as +cpu."""
    return version.partition("+")[0]


def _required() -> dict[str, str]:
    """The versions of the watched packages that the installed transloom asks for."""
    try:
        lines = metadata.requires("transloom") or []
    except metadata.PackageNotFoundError:  # run from a folder of sources
        return {}
    found = {match["name"]: match["version"] for line in lines if (match := _EXACTLY.match(line))}
    return {name: found[name] for name in CHECKED_PACKAGES if name in found}
