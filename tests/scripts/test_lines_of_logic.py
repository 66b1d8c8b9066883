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


OTHERS = {"benchmarks": 1, "css": 2, "javascript": 3, "scripts": 3, "tests/support": 1}


def run_git(checkout, *arguments):
    own = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *own, *arguments], cwd=checkout, check=True)


def commit(checkout):
    run_git(checkout, "add", ".")
    run_git(checkout, "commit", "-q", "-m", "A change")


@pytest.fixture
def checkout(tmp_path):
    """A repository of one package and a script, with a change that is not committed."""
    files = {
        "pack/__init__.py": '"""A package."""\n',
        "pack/part/__init__.py": "",
        "pack/part/module.py": SOURCE,
        "pack/page/view.js": "// all lines\n\nlet a = 1\n",
        "pack/page/view.css": "p {\n}\n",
        "docs/site.css": "p {}\n",
        "benchmarks/speed.py": "# one line\nspeed = 1\n",
        "scripts/tool": "#!/usr/bin/env python3\n# a comment\nprint()\n",
        "scripts/run": "#!/bin/sh\necho\n",
        "scripts/rules.toml": "a = 1\n",
        "tests/support/helper.py": "\nhelper = 1\n",
        "tests/test_module.py": "assert True\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run_git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("scripts/lines_of_logic\n")
    commit(tmp_path)
    shutil.copy(ROOT / "scripts" / "lines_of_logic", tmp_path / "scripts")
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
        "others": OTHERS,
    }


def test_without_a_commit_it_counts_the_working_tree(checkout):
    assert count(checkout).stdout.startswith("     11  pack\n     11  total\n      1  benchmarks\n")


def test_an_unknown_commit_is_an_error(checkout):
    done = count(checkout, "no-such-commit")
    assert done.returncode != 0
    assert "no-such-commit" in done.stderr


def write_budget(checkout, reason="first", **lines):
    ceilings = {"pack": 11, **OTHERS} | lines
    budget = {name: {"lines": line, "reason": reason} for name, line in ceilings.items()}
    (checkout / "budget.json").write_text(json.dumps(budget))


def problems(checkout):
    done = count(checkout, "--check")
    lines = done.stdout.splitlines()
    assert done.returncode == bool(lines), done.stderr
    return lines


def test_a_group_at_its_ceiling_passes_and_one_line_more_does_not(checkout):
    write_budget(checkout)
    assert problems(checkout) == []
    write_budget(checkout, pack=10, javascript=1)
    javascript, pack = problems(checkout)
    assert javascript.startswith("javascript has 3 lines, 2 above its ceiling of 1 in budget.json")
    assert pack.startswith("pack has 11 lines, 1 above its ceiling of 10 in budget.json")


def test_groups_without_a_ceiling_and_ceilings_without_a_group_are_named(checkout):
    write_budget(checkout, gone=1)
    (checkout / "new").mkdir()
    (checkout / "new/__init__.py").write_text("a = 1\n")
    assert problems(checkout) == [
        "gone has 0 lines: remove it from budget.json",
        "new has 1 lines: add its ceiling and a reason to budget.json",
    ]


def test_a_ceiling_rises_with_a_new_reason_only(checkout):
    write_budget(checkout)
    commit(checkout)
    write_budget(checkout, pack=12)
    (raised,) = problems(checkout)
    assert raised.startswith("budget.json raises pack from 11 to 12 lines without a new reason")
    commit(checkout)  # the last commit is compared with its parent, as in CI
    assert problems(checkout) == [raised]
    write_budget(checkout, reason="users get a new view", pack=12)
    assert problems(checkout) == []
    write_budget(checkout, reason="", pack=12)
    assert problems(checkout) == [raised]
