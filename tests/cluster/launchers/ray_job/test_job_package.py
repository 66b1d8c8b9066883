"""Choose the files that are sent with a job."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.recipes import tiny_values

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_package import extension_files, installed_sources, sent_files
from cluster.package_files import digest_of
from cluster.packages import INSTALLATION
from cluster.recipe import Recipe

STAYS = [".env", ".git/config", ".venv/x.py", "id_rsa", "data.tsv", "runs/a/metrics.jsonl", "a.py"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with an extension, and with files that must not be sent."""
    package = tmp_path / "project" / "my_lion"
    for name in ["__init__.py", "inner/rule.py", *STAYS]:
        path = (package if name.endswith((".py",)) and "/x" not in name else package.parent) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (package.parent / "a.py").write_text("")
    (package / "keys.pem").write_text("")
    (package / ".hidden").mkdir()
    (package / ".hidden" / "x.py").write_text("")
    return package.parent


def recipe(project: Path) -> Recipe:
    values = tiny_values(project / "dataset")
    return Recipe.of(values | {"extensions": ["my_lion"], "extension_folder": str(project)})


def test_only_python_files_of_an_extension_are_sent(project: Path) -> None:
    names = ["my_lion/__init__.py", "my_lion/a.py", "my_lion/inner/rule.py"]
    assert sorted(extension_files(recipe(project))) == names
    sent = sent_files(recipe(project), with_code=False)
    assert sorted(sent) == [f"sent-extensions/{name}" for name in names]


def test_an_upload_that_is_too_large_names_the_largest_files(project: Path) -> None:
    (project / "my_lion" / "table.py").write_text("#" * 20_000_000)
    (project / "my_lion" / "small.py").write_text("#" * 1_000_000)
    with pytest.raises(
        ClusterError, match=r"21\.0 MB would be uploaded.*at most 20\.0 MB"
    ) as refusal:
        sent_files(recipe(project), with_code=False)
    told = str(refusal.value)
    assert told.index("table.py (20.0 MB)") < told.index("small.py (1.0 MB)")


def test_the_sent_code_is_a_complete_installation(tmp_path: Path) -> None:
    """Unpacked in a different place, the code has the same digest and version, and runs."""
    for name, path in installed_sources().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(path.read_bytes())
    assert digest_of(tmp_path) == digest_of(INSTALLATION)
    assert sum(path.stat().st_size for path in installed_sources().values()) < 4_800_000
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import importlib.metadata as m; "
        "import transloom.cli.app as a; print(a.__file__, m.distribution('transloom')._path)"
    )
    command = [sys.executable, "-P", "-c", program, str(tmp_path)]
    said = subprocess.check_output(command, text=True, cwd="/").split()
    assert all(path.startswith(str(tmp_path)) for path in said)
