"""`scripts/lines_of_logic` counts code without blank lines, comments and docstrings."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''\
"""A module.

Its docstring is no logic.
"""

import os  # counted once

# a comment
TEXT = """two lines

with a blank one between"""


class Empty:
    """Nothing else."""

    field: int
    """A text below a field."""


def function(
    a,
):
    "Short."
    return os.fspath(a)
'''


@pytest.fixture
def checkout(tmp_path):
    """A repository of one package and a script, with a change that is not committed."""
    files = {
        "pack/__init__.py": '"""A package."""\n',
        "pack/part/__init__.py": "",
        "pack/part/module.py": SOURCE,
        "tests/test_module.py": "assert True\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "lines_of_logic", tmp_path / "scripts")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "First"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    (tmp_path / "pack" / "more.py").write_text("a = 1\nb = 2\n")
    return tmp_path


def count(checkout, *arguments):
    script = checkout / "scripts" / "lines_of_logic"
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_counts_code_alone(checkout):
    # import, two lines of the text, class, field, four of the function
    assert json.loads(count(checkout, "HEAD", "--json").stdout) == {
        "packages": {"pack": 9},
        "total": 9,
    }


def test_without_a_commit_it_counts_the_working_tree(checkout):
    assert count(checkout).stdout == "     11  pack\n     11  total\n"


def test_an_unknown_commit_is_an_error(checkout):
    done = count(checkout, "no-such-commit")
    assert done.returncode != 0
    assert "no-such-commit" in done.stderr
