"""Find packages of transloom that another project has overwritten, by pip's records."""

import base64
import hashlib
import shutil
import sys
from pathlib import Path

import pytest
from support.command import run_command

from cluster.own_files import overwritten_package
from cluster.packages import INSTALLATION, PACKAGES


def write_record(installation: Path, project: str, names: list[str]) -> None:
    """Write pip's record of a project's files."""
    lines = []
    for name in names:
        digest = hashlib.sha256((installation / name).read_bytes()).digest()
        encoded = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        lines.append(f"{name},sha256={encoded},{(installation / name).stat().st_size}\n")
    folder = installation / f"{project}.dist-info"
    folder.mkdir()
    (folder / "RECORD").write_text("".join(lines) + f"{folder.name}/RECORD,,\n")


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        shutil.copyfile(INSTALLATION / name / "__init__.py", tmp_path / name / "__init__.py")
    write_record(tmp_path, "transloom-0.1.0", [f"{name}/__init__.py" for name in PACKAGES])
    return tmp_path


def install_over(installation: Path, package: str, code: str) -> None:
    (installation / package / "__init__.py").write_text(code)
    write_record(installation, f"{package}_project-2.1", [f"{package}/__init__.py"])


@pytest.mark.parametrize("code", ["", "raise SystemExit('executed')"])
@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_that_another_project_has_overwritten_is_reported(
    installation: Path, package: str, code: str
) -> None:
    assert overwritten_package(installation) is None
    install_over(installation, package, code)
    problem = overwritten_package(installation)
    assert problem
    assert f"{package}/__init__.py" in problem
    assert f"pip uninstall {package}_project" in problem
    assert "--force-reinstall" in problem


def test_a_file_deleted_by_the_removal_of_another_project_is_reported(installation: Path) -> None:
    (installation / "trainer" / "__init__.py").unlink()
    problem = overwritten_package(installation)
    assert problem
    assert "trainer/__init__.py is missing" in problem
    assert "--force-reinstall" in problem
    assert "uninstall" not in problem


def test_a_changed_file_is_named_even_without_another_project(installation: Path) -> None:
    (installation / "model" / "__init__.py").write_text("x = 1")
    problem = overwritten_package(installation)
    assert problem
    assert "model/__init__.py" in problem
    assert "--force-reinstall" in problem


def test_a_record_of_a_failed_update_is_no_problem(installation: Path) -> None:
    folder = installation / "transloom-0.0.9.dist-info"
    folder.mkdir()
    (folder / "RECORD").write_text("trainer/__init__.py,sha256=old,3\n")
    assert overwritten_package(installation) is None


def test_a_checkout_without_a_record_has_no_problem() -> None:
    assert overwritten_package(INSTALLATION) is None


@pytest.mark.parametrize("package", ["cluster", "trainer"])
@pytest.mark.parametrize(
    "start",
    [
        "from transloom.cli.entry import main; main()",
        "import transloom; transloom.load_recipe('phrasebook')",
    ],
    ids=["command", "API"],
)
def test_no_code_of_the_other_project_is_executed(
    installation: Path, package: str, start: str
) -> None:
    for name in PACKAGES:
        shutil.copytree(INSTALLATION / name, installation / name, dirs_exist_ok=True)
    install_over(installation, package, "print('executed')")
    program = f"import sys; sys.path.insert(0, {str(installation)!r}); {start}"
    done = run_command(sys.executable, "-P", "-c", program, "recipes", cwd=installation)
    assert done.returncode == 1
    assert f"pip uninstall {package}_project" in done.stderr
    assert "executed" not in done.stdout + done.stderr
