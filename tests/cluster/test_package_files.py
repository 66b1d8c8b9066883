"""The files of transloom's packages, and their digest."""

import shutil
from pathlib import Path

from cluster.package_files import digest_of, package_files
from cluster.packages import INSTALLATION


def test_the_digest_does_not_depend_on_the_place_of_the_code(tmp_path: Path) -> None:
    for name, path in package_files(INSTALLATION):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / name)
    ours = digest_of(INSTALLATION)
    assert digest_of(tmp_path) == ours
    # Files that a wheel adds, and Python's caches, do not count as code.
    (tmp_path / "cluster" / "recipes").mkdir()
    (tmp_path / "cluster" / "recipes" / "mine.yaml").touch()
    (tmp_path / "model" / "__pycache__").mkdir()
    (tmp_path / "model" / "__pycache__" / "loss.cpython-311.pyc").touch()
    assert digest_of(tmp_path) == ours
    (tmp_path / "transloom" / "observe" / "explain" / "page.css").write_text("* {}")
    assert digest_of(tmp_path) != ours
