"""Rules of the house that import-linter does not know."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cluster", "trainer", "model", "data_pipeline")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize(
    ("library", "owner"),
    [
        ("deepspeed", "trainer/zero/"),
        ("wandb", "trainer/tracking/wandb_tracker.py"),
        ("webdataset", "data_pipeline/dataset/samples.py"),
    ],
)
def test_one_room_or_file_imports_the_library(library, owner):
    pattern = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
    users = [str(p.relative_to(ROOT)) for p in SOURCES if pattern.search(p.read_text())]
    assert users
    assert all(user.startswith(owner) for user in users)


def test_one_file_knows_what_is_private_in_ray():
    private = re.compile(r"^\s*(?:from|import) ray\.(?:_|core)", re.MULTILINE)
    users = [str(p.relative_to(ROOT)) for p in SOURCES if private.search(p.read_text())]
    assert users == ["cluster/ray/private.py"]


def test_nothing_that_is_read_can_execute():
    forbidden = re.compile(
        r"pickle\.loads?\(|weights_only=False|yaml\.load\(|trust_remote_code|allow_pickle=True"
        r"|shell=True|(?<![.\w])(eval|exec)\("
    )
    found = [f"{p}: {m.group()}" for p in SOURCES for m in forbidden.finditer(p.read_text())]
    assert found == []


def test_no_file_says_where_it_was_made():
    """Neither what people write nor what was recorded, in text or not."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    folder = re.compile(rb"(?<![\w.>}])/(work|root|home|Users)/\w")
    recorded = re.compile(rb"(?<![\w.>}])/tmp/\w")
    found = []
    for name in filter(None, names.stdout.decode().split("\0")):
        content = (ROOT / name).read_bytes()
        if folder.search(content) or (is_recorded(name) and recorded.search(content)):
            found.append(name)
    assert found == []


def is_recorded(name):
    return name.startswith("tests/fixtures/") and not name.endswith(".py")


def test_files_named_in_the_architecture_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for package in PACKAGES:
        for name in re.findall(rf"`({package}/[\w/]+\.py)`", text):
            assert (ROOT / name).is_file(), name


def test_commands_named_in_the_readme_exist():
    from cluster.cli.app import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"transloom ([a-z]+)", text)) - {"trains"}
    assert len(used) > 6
    assert used <= known
