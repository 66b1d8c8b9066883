"""make setup shows pip's progress on a terminal and is quiet in a log."""

import os
import pty
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A dry run in which make assumes that a dependency is newer.
COMMAND = ["make", "--dry-run", "--what-if=pyproject.toml", "setup"]


def installing(output: str) -> list[str]:
    found = [line for line in output.splitlines() if "pip " in line and " install " in line]
    assert len(found) == 3, output
    return found


def on_a_terminal() -> str:
    ours, its = pty.openpty()
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=its, stderr=its, stdin=its) as make:
        os.close(its)
        output = b""
        try:
            while part := os.read(ours, 65536):
                output += part
        except OSError:  # Linux raises it if the other end of the terminal is closed
            pass
    os.close(ours)
    assert make.returncode == 0, output
    return output.decode()


def test_pip_shows_its_progress_on_a_terminal() -> None:
    for line in installing(on_a_terminal()):
        assert "--progress-bar on" in line
        assert "--quiet" not in line


def test_pip_is_quiet_without_a_terminal() -> None:
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=True)
    for line in installing(done.stdout):
        assert "--quiet --quiet" in line
        assert "--progress-bar" not in line
