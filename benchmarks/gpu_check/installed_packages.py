"""Print the packages of an environment as JSON; the environment's Python runs this as a script.

The arguments are names of packages. The last line of the output is a JSON object. `versions` has
the versions of these packages, and `conflicts` has the conflicts with them that `pip check` finds.
`failed` has the modules that cannot be imported, among all modules of transloom and the top-level
modules of its requirements.
"""

import importlib
import importlib.metadata
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Mapping


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions_of(names: list[str]) -> dict[str, str]:
    """Return the versions of the packages that are installed, by name."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def modules_to_import(package: str) -> list[str]:
    """Return all modules of a package, and the top-level modules of its required packages.

    Packages that only an extra requires are not included.
    """
    owners = importlib.metadata.packages_distributions()
    modules: list[str] = []
    for top in tops_of({package}, owners):
        modules.append(top)
        folders = importlib.import_module(top).__dict__.get("__path__", [])
        modules += [found.name for found in pkgutil.walk_packages(folders, f"{top}.")]
    lines = [line for line in importlib.metadata.requires(package) or [] if "extra ==" not in line]
    required = {canonical(re.split(r"[^\w.-]", line)[0]) for line in lines}
    return modules + tops_of(required, owners)


def tops_of(packages: set[str], owners: Mapping[str, list[str]]) -> list[str]:
    """Return the public top-level modules of packages."""
    return sorted(
        module
        for module, names in owners.items()
        if module.isidentifier()
        and not module.startswith("_")
        and packages & set(map(canonical, names))
    )


def failures(modules: list[str]) -> dict[str, str]:
    """Return the import error of each module that cannot be imported, by module."""
    failed = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # libraries may raise any exception when they are imported
            failed[module] = f"{type(error).__name__}: {error}"
    return failed


def conflicts(names: list[str]) -> list[str]:
    """Return the version conflicts from `pip check` that involve one of the packages."""
    check = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "check"]
    said = subprocess.run(check, capture_output=True, text=True, check=False).stdout
    pattern = re.compile(r"(\S+) \S+ (?:has requirement .+, but you have|requires) ([^\s,]+)")
    found = ((line, pattern.match(line)) for line in said.splitlines())
    return [line for line, match in found if match and {*map(canonical, match.groups())} & {*names}]


if __name__ == "__main__":
    chosen = [canonical(name) for name in sys.argv[1:]]
    versions = versions_of(chosen)
    complete = len(versions) == len(set(chosen))
    failed = failures(modules_to_import("transloom")) if complete else {}
    found = conflicts(chosen) if complete and not failed else []
    print(json.dumps({"versions": versions, "failed": failed, "conflicts": found}))
