"""What a stranger installs: the wheel, built without network."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def built_wheel(folder: Path, **environment: str) -> Path:
    """Builds the wheel in an empty folder.

    Args:
        environment: variables beside those of this process.
    """
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpacked_wheel(folder: Path) -> Path:
    """Builds the wheel in a folder and unpacks it there, which is an installation."""
    return unpacked(built_wheel(folder))


def unpacked(wheel: Path) -> Path:
    """Unpacks a wheel beside itself."""
    installed = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    return installed
