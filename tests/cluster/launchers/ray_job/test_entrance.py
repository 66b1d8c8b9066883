"""The processes of a job, by the commands that start them."""

import os
import subprocess
import sys
from pathlib import Path

from cluster.launchers.ray_job.entrance import IMPORT_BOOTSTRAP
from cluster.launchers.ray_job.training_process import (
    IMPORT_OWN_PACKAGES,
    NO_ARGV,
    argv_line,
    start,
    training_command,
)
from transloom.cli.jobs import ENTRY_POINT


def test_the_clients_entry_point_gets_the_arguments(tmp_path: Path) -> None:
    (tmp_path / "cluster.py").write_text("raise SystemExit('a foreign cluster')")
    process = start(training_command(ENTRY_POINT), {**os.environ, "COLUMNS": "100"})
    line = argv_line(["train", "--help"], tmp_path, {})
    output, _ = process.communicate(f"{line}\n".encode(), timeout=100)
    assert process.returncode == 0, output
    assert b"--inline" in output


def test_without_arguments_the_process_leaves() -> None:
    process = start(training_command("json.tool"), os.environ)
    process.communicate(b"", timeout=100)
    assert process.returncode == NO_ARGV


def test_the_command_of_an_older_client_is_refused() -> None:
    """It called `run_job` without an entry point."""
    code = f"{IMPORT_OWN_PACKAGES}{IMPORT_BOOTSTRAP} run_job; run_job()"
    command = [sys.executable, "-P", "-c", code, "job.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "older version of transloom" in done.stderr
    assert "Submit the job again" in done.stderr
