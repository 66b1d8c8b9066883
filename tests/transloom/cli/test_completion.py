"""Shell completion, requested as bash requests it, without importing torch or Ray."""

import json
from pathlib import Path

import pytest
from support.command import run_python
from typer.testing import CliRunner

from transloom.cli.app import app

PROGRAM = """
import atexit, sys
def told():
    slow = [name for name in ("torch", "ray", "deepspeed", "wandb", "numpy") if name in sys.modules]
    print("imported:", *slow, file=sys.stderr)
atexit.register(told)
sys.argv = ["transloom"]
from transloom.cli.app import main
main()
"""


def environment(words):
    """Return the variables that bash sets to complete the last of these words."""
    return {
        "_TRANSLOOM_COMPLETE": "complete_bash",
        "COMP_WORDS": f"transloom {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nextensions: [never_imported]\n")
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps({}))
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "never_imported.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train phrase", ["phrasebook"]),
        ("train mi", ["mine.yaml"]),
        ("recipes shake", ["shakespeare-char"]),
        ("train phrasebook trainer.max", ["trainer.max_steps=600"]),
        ("train phrasebook trainer.optimizer.bet", ["trainer.optimizer.betas="]),
        ("train shakespeare-char batching.con", ["batching.context_length=64"]),
        ("train mine.yaml engine.prec", ["engine.precision="]),
        ("fields --task text_", ["text_classification"]),
        ("translate ru", ["runs/a", "runs/b"]),
        ("translate runs/b", ["runs/b"]),
        ("translate /nowhere/x", []),
        ("che", ["checkpoints"]),
    ],
)
def test_commands_recipes_fields_and_runs_are_completed(folder: Path, monkeypatch, words, expected):
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, [], prog_name="transloom", env=environment(words))
    assert done.output.split() == expected
    assert not (folder / "ran").exists()  # completion executes no code of extensions


@pytest.mark.parametrize("words", ["train phrasebook trainer.max", "translate ru"])
def test_completion_imports_no_heavy_modules(folder: Path, words):
    done = run_python(PROGRAM, cwd=folder, **environment(words))
    assert done.stdout.split()
    assert done.stderr == "imported:\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_completion_script(shell):
    source = {"_TRANSLOOM_COMPLETE": f"source_{shell}"}
    done = CliRunner().invoke(app, [], prog_name="transloom", env=source)
    assert "_TRANSLOOM_COMPLETE=complete_" in done.output
