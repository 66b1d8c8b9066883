"""Programs and permissions that some tests need: namespaces, Slurm, a browser, Prometheus.

If a part is missing, the test is skipped with a reason. Under `make lab`, which sets
TRANSLOOM_LAB=1 and installs missing parts, the test fails instead.
"""

import os
import shutil
from typing import NoReturn

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COMPILERS = ("cc", "gcc", "clang")
SLURM = ("slurmctld", "slurmd", "slurmstepd", "sbatch", "scancel", "scontrol")
# Debian has some programs in directories that are only on root's path.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def program(*names: str) -> str | None:
    """Return the path of the first of these programs that exists."""
    return next(filter(None, (shutil.which(name, path=_PATH) for name in names)), None)


def lacks(part: str) -> str | None:
    """Return the reason why this machine lacks a part; None if it has the part."""
    match part:
        case "namespaces":
            if os.geteuid():
                return "only root can make network namespaces"
            return _without("ip", "unshare", "nsenter")
        case "small disks":
            return _without("mount", "unshare")
        case "compiler":
            return None if program(*COMPILERS) else "no C compiler here"
        case "slurm":
            return _without(*SLURM)
        case "prometheus":
            return _without("prometheus", "promtool")
        case "browser":
            return None if program(*BROWSERS) else "no Chromium here"
    raise AssertionError(f"the tests know no part {part!r} of a machine")


def missing(reason: str) -> NoReturn:
    """Skip or fail a test that cannot run on this machine."""
    if os.environ.get("TRANSLOOM_LAB"):
        pytest.fail(f"make lab must find all it needs: {reason}")
    pytest.skip(reason)


def _without(*names: str) -> str | None:
    absent = [name for name in names if not program(name)]
    return f"no {', '.join(absent)} here" if absent else None
