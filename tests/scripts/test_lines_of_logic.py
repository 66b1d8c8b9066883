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


COUNTS = {"product": 12, "pages": 5, "development": 5, "tests": 1, "words": 5}


def run_git(checkout, *arguments):
    own = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *own, *arguments], cwd=checkout, check=True)


def commit(checkout):
    run_git(checkout, "add", ".")
    run_git(checkout, "commit", "-q", "-m", "A change")


@pytest.fixture
def checkout(tmp_path):
    """Return a repository with one package and scripts, and an uncommitted file."""
    files = {
        "pack/__init__.py": '"""A package."""\n',
        "pack/part/__init__.py": "",
        "pack/part/module.py": SOURCE,
        "pack/run.sh": "# all lines\n",
        "pack/page/view.js": "// all lines\n\nlet a = 1\n",
        "pack/page/view.css": "p {\n}\n",
        "pack/page/view.html": "<p>\n\n",
        "pack/notes.txt": "not counted\n",
        "docs/site.css": "p {}\n",
        "docs/page.md": "two words\n",
        "README.md": "three more words\n",
        "CHANGELOG.md": "not counted\n",
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


def test_lines_of_logic_counts_only_code(checkout):
    # import, two lines of the string, class, field, four lines of the function
    assert json.loads(count(checkout, "HEAD", "--json").stdout) == {
        "packages": {"pack": 9},
        "total": 9,
        "counts": COUNTS,
    }


def test_without_a_commit_the_working_tree_is_counted(checkout):
    assert count(checkout).stdout.startswith("     11  pack\n     11  total\n     14  product\n")


def test_an_unknown_commit_is_an_error(checkout):
    done = count(checkout, "no-such-commit")
    assert done.returncode != 0
    assert "no-such-commit" in done.stderr


def write_budget(checkout, **changes):
    counts = COUNTS | {"product": 14}
    budget = {name: {"ceiling": most, "lowest": most} for name, most in counts.items()} | changes
    (checkout / "budget.json").write_text(json.dumps(budget))


def problems(checkout):
    done = count(checkout, "--check")
    lines = done.stdout.splitlines()
    assert done.returncode == bool(lines), done.stderr
    return lines


def test_a_count_above_its_ceiling_is_a_problem(checkout):
    write_budget(checkout)
    assert problems(checkout) == []
    low = {"ceiling": 4, "lowest": 4}
    write_budget(checkout, pages=low, words=low)
    pages, words = problems(checkout)
    assert pages.startswith("pages has 5, 1 above its ceiling of 4 in budget.json")
    assert words.startswith("words has 5, 1 above its ceiling of 4 in budget.json")


def test_a_ceiling_above_its_lowest_value_is_refused(checkout):
    write_budget(checkout, product={"ceiling": 15, "lowest": 14})
    assert problems(checkout) == [
        "budget.json has the ceiling 15 for product, which was 14 before: ceilings only fall"
    ]
    write_budget(checkout, product={"ceiling": 14, "lowest": 15})
    assert problems(checkout) == []


def test_a_budget_with_an_unknown_name_is_refused(checkout):
    write_budget(checkout, gone={"ceiling": 1, "lowest": 1})
    (problem,) = problems(checkout)
    assert "gone" in problem


def test_the_lowest_ceilings_equal_those_of_the_git_history():
    """budget.json must record a lower ceiling of an earlier commit."""
    kept = json.loads((ROOT / "budget.json").read_text())
    listed = ["git", "log", "--format=%H", "--", "budget.json"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    for commit in done.stdout.split():  # no commits without a repository
        show = ["git", "show", f"{commit}:budget.json"]
        text = subprocess.run(show, cwd=ROOT, capture_output=True, text=True).stdout
        for name, entry in json.loads(text or "{}").items():
            if name in kept and "lowest" in entry:  # earlier budgets had other counts
                assert kept[name]["lowest"] <= min(entry.values()), (name, commit)
