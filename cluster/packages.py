"""Import our own `cluster`, `trainer`, `model` and so on, and compare their sources between nodes.

The names are generic, so a user's folder may hold packages of the same names, and such a folder
can get onto Python's path: through PYTHONPATH, through a Ray job's working directory, or because
Ray puts the folder of the driver before everything else on the path of its workers. Ours are in
the installation, the folder from which this file was imported.
"""

import importlib
import sys
from pathlib import Path

from cluster.errors import ClusterError
from cluster.ray.head_probe import PACKAGES, digest_of

INSTALLATION = Path(__file__).resolve().parent.parent


def digest_of_sources() -> str:
    """Return the digest of the transloom that this process imports.

    Actor classes travel by value, with the constants that they name: so they call this instead.
    """
    return digest_of(INSTALLATION)


def other_sources(process: str, found: str, expected: str, use: str) -> str:
    """Return the message about a process whose sources are not the driver's.

    Args:
        found: the digest of its sources.
        expected: that of the driver's.
        use: for what the process would use them, as an infinitive.
    """
    return (
        f"{process} has another transloom than the driver (sources {found[:12]}…, expected "
        f"{expected[:12]}…), and would {use} by it. Install the same there, or use transloom "
        "submit, which sends its own"
    )


def import_own_packages() -> None:
    """Import our packages from the installation, whatever stands on the path before it.

    A package once imported finds its modules by itself, so later changes of the path do no harm.

    Raises:
        ClusterError: this process has already imported a foreign module of one of the names.
    """
    sys.path.insert(0, str(INSTALLATION))
    try:
        imported = {name: importlib.import_module(name) for name in PACKAGES}
    finally:
        sys.path.remove(str(INSTALLATION))
    for name, module in imported.items():
        found = module.__file__ or "a folder without __init__.py"
        if Path(found).resolve().parent != INSTALLATION / name:
            raise ClusterError(
                f"This process has already imported a module {name} from {found}, but transloom "
                f"needs its own from {INSTALLATION / name}: start it with the command transloom, "
                f"or import transloom's {name} before the other"
            )
