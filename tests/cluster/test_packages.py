from pathlib import Path

from support.command import run_python

from cluster.packages import INSTALLATION, PACKAGES

IMPORT_ALL = f"""
import sys
for name in sys.argv[1:]:
    __import__(name)  # what a user's program may have done before
from cluster.packages import import_own_packages
import_own_packages()
print(*[__import__(name).__file__ for name in {PACKAGES}])
"""


def test_transloom_s_packages_take_precedence_over_the_current_folder(tmp_path: Path) -> None:
    for name in ("trainer", "run_store", "model", "data_pipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('decoy')")
    answer = run_python(IMPORT_ALL, cwd=tmp_path)  # with -c, this folder is the first on the path
    assert answer.stdout.split() == [str(INSTALLATION / n / "__init__.py") for n in PACKAGES]
    lying = run_python(IMPORT_ALL, "model", cwd=tmp_path)
    assert "decoy" in lying.stderr  # the decoys are on the path


def test_a_foreign_module_that_was_imported_before_is_reported(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    answer = run_python(IMPORT_ALL, "model", cwd=tmp_path)
    assert answer.returncode == 1
    assert f"module model from {tmp_path / 'model.py'}" in answer.stderr
    assert str(INSTALLATION / "model") in answer.stderr
