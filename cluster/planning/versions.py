"""Check the versions of torch, DeepSpeed and Ray on this machine."""

import re
from collections.abc import Iterator
from importlib import metadata

from cluster.planning.problem import PlanProblem

# transloom uses private parts of these packages and therefore requires an exact version of each.
# Training may fail with another version.
CHECKED_PACKAGES = ("torch", "deepspeed", "ray")
_EXACTLY = re.compile(r"(?P<name>[\w-]+)(\[[\w,-]+\])?==(?P<version>[\w.]+)$")


def package_problems() -> Iterator[PlanProblem]:
    """Yield a problem for each package of this machine that lacks the required version."""
    for name, wanted in _required().items():
        found = version_of(name)
        if found is None or found.partition("+")[0] != wanted:  # ignore a build tag
            installed = f"has version {found}" if found else "is not installed"
            yield PlanProblem(
                "versions",
                f"{name} {installed} on this machine, but transloom requires version {wanted}. "
                f"Install it with `pip install {name}=={wanted}`",
                refuses=found is None,
            )


def version_of(name: str) -> str | None:
    """Return the version of an installed distribution, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _required() -> dict[str, str]:
    """Return the versions of the checked packages that the installed transloom requires."""
    try:
        lines = metadata.requires("transloom") or []
    except metadata.PackageNotFoundError:  # run from a source folder
        return {}
    found = {match["name"]: match["version"] for line in lines if (match := _EXACTLY.match(line))}
    return {name: found[name] for name in CHECKED_PACKAGES if name in found}
