"""Import our own `cluster`, `trainer`, `model` and so on, and compare their sources between nodes.

The names are generic, so a user's directory may hold packages of the same names. Such a directory
can get onto Python's path through PYTHONPATH or a Ray job's working directory. Ray also puts the
driver's directory first on the path of its workers. Our packages are in the installation: the
directory from which this file was imported.
"""

import importlib
import sys
from pathlib import Path

from cluster.errors import ClusterError
from cluster.own_files import overwritten_package
from cluster.package_files import PACKAGES, digest_of

INSTALLATION = Path(__file__).resolve().parent.parent


def digest_of_sources() -> str:
    """Return the digest of the transloom sources that this process imports.

    Ray pickles actor classes by value, together with the constants that they use. A constant would
    bring the driver's digest to another node. Therefore actors call this function.
    """
    return digest_of(INSTALLATION)


def other_sources(process: str, found: str, expected: str, use: str) -> str:
    """Return the message about a process whose sources differ from the driver's.

    Args:
        process: the name of the process in the message.
        found: the digest of the process's sources.
        expected: the digest of the driver's sources.
        use: the process's task, as a verb such as "train".
    """
    return (
        f"{process} has another transloom than the driver (sources {found[:12]}…, expected "
        f"{expected[:12]}…), and would {use} with it. Install the driver's version there, or use "
        "`transloom submit`, which sends this version to all nodes"
    )


def import_own_packages() -> None:
    """Import our packages from the installation, even if `sys.path` lists other directories first.

    An imported package finds its submodules through its `__path__`, so later changes of `sys.path`
    do not affect it.

    Raises:
        ClusterError: this process has already imported another module under the name of one of our
            packages, or another project has overwritten one of them.
    """
    if problem := overwritten_package(INSTALLATION):
        raise ClusterError(problem)
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
                f"needs {INSTALLATION / name}. Start the process with the command `transloom`, or "
                f"import transloom's {name} before the other module"
            )
