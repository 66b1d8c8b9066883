"""The files of our packages, and their digest."""

import shutil
from pathlib import Path

from cluster.package_files import digest_of, package_files
from cluster.packages import INSTALLATION


def test_the_digest_is_that_of_the_code_wherever_it_lies(tmp_path: Path) -> None:
    for name, path in package_files(INSTALLATION):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / name)
    ours = digest_of(INSTALLATION)
    assert digest_of(tmp_path) == ours
    # What a wheel has besides, and what Python leaves, is no other code.
    (tmp_path / "cluster" / "recipes").mkdir()
    (tmp_path / "cluster" / "recipes" / "mine.yaml").touch()
    (tmp_path / "model" / "__pycache__").mkdir()
    (tmp_path / "model" / "__pycache__" / "loss.cpython-311.pyc").touch()
    assert digest_of(tmp_path) == ours
    (tmp_path / "transloom" / "observe" / "explain" / "page.css").write_text("* {}")
    assert digest_of(tmp_path) != ours
