"""The commands that start a job's processes."""

import os
from pathlib import Path

from cluster.launchers.ray_job.preloaded_process import (
    NO_ARGV,
    argv_line,
    start,
    training_command,
)
from transloom.cli.jobs import ENTRY_POINT


def test_the_training_command_passes_its_arguments_to_the_entry_point(tmp_path: Path) -> None:
    (tmp_path / "cluster.py").write_text("raise SystemExit('a foreign cluster')")
    process = start(training_command(ENTRY_POINT), {**os.environ, "COLUMNS": "100"})
    line = argv_line(["train", "--help"], tmp_path, {})
    output, _ = process.communicate(f"{line}\n".encode(), timeout=100)
    assert process.returncode == 0, output
    assert b"--inline" in output


def test_the_training_command_exits_if_it_gets_no_arguments() -> None:
    process = start(training_command("json.tool"), os.environ)
    process.communicate(b"", timeout=100)
    assert process.returncode == NO_ARGV
