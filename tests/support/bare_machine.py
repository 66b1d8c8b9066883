"""Simulate a machine with torch and few other packages, and without a network.

It represents a machine with a GPU.
"""

import importlib.metadata
import os
import subprocess
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
# Run a command in a network namespace that has only a loopback address, with read-only parts.
ALONE = ("unshare", "--net", "--mount", "sh", "-c")
SET_UP = 'ip link set lo up; mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; exec "$@"'
_INSTALL = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from benchmarks.gpu_check.install import installed
print(installed(*map(Path, sys.argv[1:])))
"""


@dataclass(frozen=True)
class BareMachine:
    """Machine with a separate Python, and a read-only folder.

    Attributes:
        python: the Python of a virtual environment, as is usual on such machines.
        read_only: the folder with the parts that were copied to the machine.
    """

    python: Path
    read_only: Path

    def run(self, *command: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run a command on the machine, and wait until it ends."""
        # outside of the checkout, which is read-only
        bytecode = str(self.python.parents[1] / "bytecode")
        kept = {"PATH": os.defpath, "HOME": str(cwd), "PYTHONPYCACHEPREFIX": bytecode}
        return subprocess.run(
            [*ALONE, SET_UP, str(self.read_only), *map(str, command)],
            cwd=cwd,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
        )


def install_command(python: Path, parts: Path, into: Path) -> list[str | Path]:
    """Return the command that installs parts; its last line of output is the path of the Python."""
    return [python, "-c", _INSTALL, parts, into]


def python_with(packages: Iterable[str], folder: Path) -> Path:
    """Return the Python of a new environment with links to some installed packages.

    The environment also has the packages that these packages require.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for name in _with_requirements(packages):
        distribution = importlib.metadata.distribution(name)
        entries = {path.parts[0] for path in distribution.files or [] if ".." not in path.parts}
        for entry in entries - {"__pycache__"}:
            if not (link := site_packages / entry).exists():
                link.symlink_to(distribution.locate_file(entry))
    return folder / "bin" / "python"


def plant_package(python: Path, name: str, version: str, code: str = "") -> None:
    """Add a package with a single module, which has this code, to an environment."""
    (site_packages,) = python.parents[1].glob("lib/python*/site-packages")
    (site_packages / f"{name}.py").write_text(code)
    metadata = site_packages / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def _with_requirements(packages: Iterable[str]) -> set[str]:
    found: set[str] = set()
    pending = [canonicalize_name(name) for name in packages]
    while pending:
        if (name := pending.pop()) in found:
            continue
        found.add(name)
        required = map(Requirement, importlib.metadata.requires(name) or [])
        pending += [
            canonicalize_name(one.name)
            for one in required
            if one.marker is None or one.marker.evaluate({"extra": ""})
        ]
    return found
