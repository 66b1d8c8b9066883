import subprocess
import sys
from pathlib import Path

from cluster.packages import INSTALLATION, PACKAGES

IMPORT_ALL = f"""
import sys
for name in sys.argv[1:]:
    __import__(name)  # what a user's program may have done before
from cluster.packages import import_own_packages
import_own_packages()
print(*[__import__(name).__file__ for name in {PACKAGES}])
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *arguments],
        cwd=folder,  # the first folder on the path, with -c
        capture_output=True,
        text=True,
    )


def test_own_packages_come_before_those_of_the_current_folder(tmp_path: Path) -> None:
    for name in ("trainer", "model", "data_pipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('decoy')")
    answer = run(tmp_path)
    assert answer.stdout.split() == [str(INSTALLATION / n / "__init__.py") for n in PACKAGES]
    assert "decoy" in run(tmp_path, "model").stderr  # the decoys do lie on the path


def test_a_foreign_module_that_is_imported_already_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    answer = run(tmp_path, "model")
    assert answer.returncode == 1
    assert f"module model from {tmp_path / 'model.py'}" in answer.stderr
    assert str(INSTALLATION / "model") in answer.stderr
