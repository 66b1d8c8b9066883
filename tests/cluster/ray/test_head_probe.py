"""The program that inspects a head node, run from its text as on the head node."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.ray import head_probe
from cluster.ray.exposure import probe_program


@pytest.mark.parametrize(("mode", "code"), [(0o700, head_probe.CLOSED), (0o755, head_probe.OPEN)])
def test_the_probe_runs_as_a_single_text_without_imports_of_transloom(
    mode: int, code: int, parent: Path
) -> None:
    (logs := parent / "session" / "logs").mkdir(parents=True)
    parent.chmod(mode)
    (parent / "file").touch()
    asked = [str(parent), str(parent / "nowhere"), str(parent / "file" / "run")]
    with (logs / "job-driver.log").open("w+") as log:
        done = subprocess.run(
            [sys.executable, "-I", "-c", probe_program(), *asked], stdout=log, check=False
        )
        log.seek(0)
        found = json.load(log)
    assert done.returncode == code
    assert ("other users may enter" in str(found["access_by_others"])) == (code == head_probe.OPEN)
    assert found["folders"] == dict(zip(asked, (True, False, False), strict=True))
    assert found["unwritable"] == {asked[2]: f"{parent / 'file'} is a file"}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["versions"]["ray"] == "2.60.0"
