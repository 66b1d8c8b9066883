"""make setup: pip's progress on a terminal, where it takes minutes, and quiet in a log."""

import os
import pty
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# As if a file that it depends on were newer; nothing is run.
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
        except OSError:  # Linux says so of a terminal whose other end is closed
            pass
    os.close(ours)
    assert make.returncode == 0, output
    return output.decode()


def test_pip_shows_its_progress_on_a_terminal() -> None:
    for line in installing(on_a_terminal()):
        assert "--progress-bar on" in line
        assert "--quiet" not in line


def test_a_log_gets_no_progress() -> None:
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=True)
    for line in installing(done.stdout):
        assert "--quiet --quiet" in line
        assert "--progress-bar" not in line
