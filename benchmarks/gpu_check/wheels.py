"""Find the wheels that a machine lacks, by the requirements in the metadata of wheels.

pip evaluates environment markers for the Python that runs it, even if it downloads for another
Python. This module therefore resolves the requirements itself, with the target's markers.
"""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import Parser
from functools import cached_property
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from benchmarks.gpu_check.parts import PartsError

OLDEST_GLIBC = 17  # 2.17 is manylinux2014


@dataclass(frozen=True)
class Target:
    """Machine without a package index.

    Attributes:
        python: its Python version, such as "3.12".
        glibc: the minor version of its glibc 2.
        has: versions of the packages that it has and keeps; None for an unknown version.
    """

    python: str
    machine: str
    glibc: int
    has: Mapping[str, str | None]

    @cached_property
    def platforms(self) -> list[str]:
        """Return the platform tags of wheels that can run on the machine, newest first."""
        numbered = [f"manylinux_2_{n}" for n in range(self.glibc, OLDEST_GLIBC - 1, -1)]
        names = [*numbered, "manylinux2014"]
        if self.machine == "x86_64":
            names += ["manylinux_2_12", "manylinux2010", "manylinux_2_5", "manylinux1"]
        return [f"{name}_{self.machine}" for name in [*names, "linux"]]

    @cached_property
    def tags(self) -> frozenset[Tag]:
        version = [int(number) for number in self.python.split(".")]
        own = cpython_tags(version, platforms=self.platforms)
        return frozenset([*own, *compatible_tags(version, platforms=self.platforms)])

    def wants(self, requirement: Requirement, extra: str) -> bool:
        """Return whether the marker of a requirement holds on the machine.

        Args:
            extra: the extra of the package that has the requirement; empty for none.
        """
        environment = default_environment() | {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": self.machine,
            "extra": extra,
        }
        return requirement.marker is None or requirement.marker.evaluate(environment)


@dataclass(frozen=True)
class Wheel:
    """Wheel on disk, with its metadata."""

    path: Path
    name: str
    version: Version
    python: SpecifierSet
    requires: list[Requirement]

    @classmethod
    def read(cls, path: Path) -> "Wheel":
        """Read the metadata of a wheel.

        Raises:
            PartsError: the wheel is damaged.
        """
        name, version, *_ = parse_wheel_filename(path.name)
        try:
            with zipfile.ZipFile(path) as archive:
                inside = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
                stated = Parser().parsestr(archive.read(inside).decode("utf-8"), headersonly=True)
        except (zipfile.BadZipFile, StopIteration) as error:
            raise PartsError(
                f"{path} is not an intact wheel ({error!r}). Remove the file, and collect again."
            ) from None
        requires = [Requirement(line) for line in stated.get_all("Requires-Dist", [])]
        return cls(path, name, version, SpecifierSet(stated.get("Requires-Python", "")), requires)


@dataclass(frozen=True)
class Needed:
    """Requirement, with the package that has it."""

    requirement: Requirement
    by: str

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    def __str__(self) -> str:
        plain = Requirement(str(self.requirement))
        plain.marker = None
        return f"{plain} (required by {self.by})"


@dataclass(frozen=True)
class Closure:
    """Packages that the roots need, and requirements of these packages that nothing satisfies."""

    reached: set[str]
    lacking: list[Needed]


def closure(wheels: Mapping[str, Wheel], target: Target, roots: Iterable[Needed]) -> Closure:
    """Follow the requirements of the roots through the wheels.

    A package on the machine satisfies every requirement, whatever its version. Its own requirements
    are not followed.
    """
    lacking: dict[str, Needed] = {}
    seen: set[tuple[str, str]] = set()  # package and extra; "" is the package itself
    pending = list(roots)
    while pending:
        needed = pending.pop()
        if needed.name in target.has:
            continue
        wheel, allowed = wheels.get(needed.name), needed.requirement.specifier
        if wheel is None or not allowed.contains(wheel.version, prereleases=True):
            lacking[str(needed)] = needed
            continue
        new = {(needed.name, extra) for extra in ("", *needed.requirement.extras)} - seen
        seen |= new
        for _, extra in new:
            pending += [Needed(r, wheel.name) for r in wheel.requires if target.wants(r, extra)]
    return Closure({name for name, _ in seen}, list(lacking.values()))


def unfit(wheels: Iterable[Wheel], target: Target) -> list[str]:
    """Return a sentence for each wheel that the target's Python or platform cannot use."""
    sentences = []
    for wheel in wheels:
        if not wheel.python.contains(f"{target.python}.0"):
            sentences.append(f"{wheel.path.name} requires Python {wheel.python}")
        elif not target.tags & parse_wheel_filename(wheel.path.name)[3]:
            sentences.append(f"{wheel.path.name} is for other platforms")
    return sentences
