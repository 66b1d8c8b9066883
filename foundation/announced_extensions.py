"""Extensions that installed packages announce, read from metadata without importing them.

    [project.entry-points."transloom.extensions"]     in the pyproject.toml of a package
    "optimizer.lion" = "lion"                         KIND.NAME = the module that registers it

Announcements help users to find a module: `transloom extensions` lists them, and the message about
an unknown name suggests them. Only a recipe that names a module loads it.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

ENTRY_POINTS = "transloom.extensions"
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True, order=True)
class AnnouncedComponent:
    """Component that a module of an installed package registers, according to its metadata.

    Attributes:
        module: the module, for `extensions` in a recipe.
        kind: kind of the component, such as "optimizer"; see `foundation.registry.Registry`.
        name: the name that a recipe uses for the component.
        package: the installed distribution.
        version: the version of this distribution.
    """

    module: str
    kind: str
    name: str
    package: str
    version: str


def announced_components() -> list[AnnouncedComponent]:
    """Return all announced components, sorted by module; damaged metadata announces nothing."""
    found: set[AnnouncedComponent] = set()
    for distribution in metadata.distributions():
        with suppress(Exception):  # the metadata of any package may be malformed
            found.update(_components(distribution))
    return sorted(found)


def _components(distribution: metadata.Distribution) -> Iterator[AnnouncedComponent]:
    for point in distribution.entry_points:
        kind, _, name = point.name.partition(".")
        if point.group == ENTRY_POINTS and name and _MODULE.fullmatch(point.value):
            package, version = str(distribution.name), str(distribution.version)
            yield AnnouncedComponent(point.value, kind, name, package, version)


def remedy_for_unknown(kind: str, name: str) -> str:
    """Return advice on how a recipe can use a component that no loaded module registers."""
    for found in announced_components():
        if (found.kind, found.name) == (kind, name):
            return (
                f"add the line `extensions: [{found.module}]`, because the installed package "
                f"{found.package} {found.version} announces this {kind}"
            )
    return f"list the module that registers {name!r} under extensions"
