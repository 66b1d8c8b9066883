"""The console script: Ctrl-C ends a command without a traceback, even during its imports."""

import signal
import subprocess
from pathlib import Path

import pytest
from support.command import run_python

from cluster.errors import RecipeError

PROGRAM = "from transloom.cli.entry import main; main()"
# Python imports this module when it starts, so it uses the standard library only.
SITECUSTOMIZE = """
import os, signal, sys

class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["STRIKE_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Strike())
"""


def run_struck(folder: Path, module: str) -> "subprocess.CompletedProcess[str]":
    """Run `transloom runs`, interrupt it when it imports `module`, and return the process."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return run_python(PROGRAM, "runs", folder, PYTHONPATH=str(folder), STRIKE_AT=module)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "module",
    [
        "transloom.cli.app",
        "typer",
        "pydantic",
        "transloom.cli.watch",
        "transloom.observe.terminal.run_status_text",  # imported after the command has started
        "run_store.record.run_status",
    ],
)
def test_an_interrupt_during_imports_prints_nothing(tmp_path: Path, module: str) -> None:
    done = run_struck(tmp_path, module)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_without_an_interrupt_the_command_succeeds(tmp_path: Path) -> None:
    assert run_struck(tmp_path, "no.such.module").returncode == 0


def test_sigint_stays_ignored_if_the_shell_ignores_it(tmp_path: Path) -> None:
    """A script's `nohup transloom … &` starts commands with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_struck(tmp_path, "typer").returncode == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("command", ["train", "plan", "submit", "deploy slurm"])
def test_commands_refuse_an_http_url_as_a_run(transloom, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError):
        transloom(*command.split(), "phrasebook", "--run", "http://bucket/run")
    assert list(tmp_path.iterdir()) == []


def test_help_wraps_at_the_width_of_the_terminal(transloom):
    shown = transloom("watch", "--help").stdout
    assert "may train on any machine" in shown.replace("\n", " ").replace("  ", " ")
    assert "so the runs \n" not in shown


def test_without_a_temporary_directory_the_error_names_tmpdir() -> None:
    program = (
        "import tempfile; from transloom.cli import app\n"
        "tempfile._candidate_tempdir_list = lambda: ['/proc']\n"
        "app.app = tempfile.gettempdir\n"
        "app.main()"
    )
    done = run_python(program)
    assert done.returncode == 1
    assert "/proc" in done.stderr
    assert "TMPDIR" in done.stderr
