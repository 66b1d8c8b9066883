"""Act as another user of this machine: a shell with another user id."""

import os
import subprocess

import pytest

NOBODY = 65534


def as_another_user(script: str) -> subprocess.CompletedProcess[str]:
    """Run lines of a shell as a user who owns no files and is in none of our groups."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    return subprocess.run(
        ["sh", "-c", script],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
