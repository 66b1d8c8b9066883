"""Parts are installed as an environment over the machine's packages, or refused with a reason."""

import ensurepip
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.bare_machine import install_command, plant_package, python_with
from support.wheel import write_wheel

from benchmarks.gpu_check.install import ROOT, installed
from benchmarks.gpu_check.parts import Expected, Manifest, PartsError, piece_of, split

pytestmark = pytest.mark.long


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a Python with an older torch, and with a package that cannot be imported."""
    python = python_with([], tmp_path / "machine")
    plant_package(python, "torch", "2.11.0+cu130")
    plant_package(python, "part", "0.9", "raise ImportError('of the machine')")
    return python


def bundled_pip() -> Path:
    bundled = Path(ensurepip.__file__).parent / "_bundled"
    if not (pip := next(bundled.glob("pip-*.whl"), None)):
        pytest.skip("this Python bundles no pip")
    return pip


def parts_of(folder: Path, part: str = "", pip: bool = True) -> Path:
    """Return parts with pip, a transloom of one module, and a package that transloom requires."""
    wheels, parts = folder / "wheels", folder / "parts"
    wheels.mkdir()
    parts.mkdir()
    if pip:
        shutil.copy(bundled_pip(), wheels)
    write_wheel(wheels, "part", code=part)
    write_wheel(wheels, "transloom", requires=["part==1.0", "torch==2.13.0"])
    paths = sorted(wheels.iterdir())
    Manifest(
        python="{}.{}".format(*sys.version_info),
        machine=platform.machine(),
        files=[piece_of(path) for path in paths],
        parts=split(paths, parts, part_bytes=2**20 if pip else 500),
        on_machine={"torch": Expected("2.11", "2.13.0")}
        | ({} if pip else {"pip": Expected(None, None)}),
        deviations=["torch 2.11 instead of 2.13.0", "built without a compiler"],
    ).write(parts)
    return parts


def install_there(python: Path, parts: Path, into: Path) -> "subprocess.CompletedProcess[str]":
    command = install_command(python, parts, into.relative_to(parts.parent))
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=parts.parent, env=environment, capture_output=True, text=True, check=False
    )


def test_carried_packages_precede_the_machines_and_deviations_name_versions(
    tmp_path: Path, machine: Path
) -> None:
    parts, into = parts_of(tmp_path), tmp_path / "environment"
    done = install_there(machine, parts, into)
    assert done.returncode == 0, done.stderr
    python = done.stdout.splitlines()[-1]
    assert python == str(into / "bin" / "python")
    code = "import part, torch, transloom; print(part.__file__, torch.__file__)"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    carried, there = said.split()
    assert Path(carried).is_relative_to(into)
    assert Path(there).is_relative_to(machine.parents[1])

    deviations = json.loads((into / "deviations.json").read_text())
    assert deviations[:2] == ["torch 2.11.0+cu130 instead of 2.13.0", "built without a compiler"]
    assert ["torch==2.13.0" in one for one in deviations[2:]] == [True]
    versions = json.loads((into / "installed.json").read_text())["versions"]
    assert versions.pop("pip")
    assert versions == {"part": "1.0", "torch": "2.11.0+cu130", "transloom": "1.0"}
    assert not list(into.rglob("*.whl"))

    again = install_there(machine, parts, into)
    assert f"{into} already has these parts" in again.stdout


def test_parts_of_several_transfers_are_installed_by_the_machines_pip(
    tmp_path: Path, machine: Path
) -> None:
    (site_packages,) = machine.parents[1].glob("lib/python*/site-packages")
    shutil.unpack_archive(bundled_pip(), site_packages, "zip")
    collected, carried = parts_of(tmp_path, pip=False), tmp_path / "carried"
    into = tmp_path / "environment"
    carried.mkdir()
    manifest, *parts = sorted(collected.iterdir())
    assert len(parts) > 1
    for number, file in enumerate((manifest, *parts)):
        folder = tmp_path / f"transfer-{number}"
        folder.mkdir()
        shutil.copy(file, folder)
        shutil.copytree(folder, carried, dirs_exist_ok=True)
        if file != parts[-1]:
            assert "Copy these parts again" in install_there(machine, carried, into).stderr
    done = install_there(machine, carried, into)
    assert done.returncode == 0, done.stderr
    code = "import part, pip, transloom; print(part.__file__, pip.__file__)"
    python = str(into / "bin" / "python")
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    installed_part, pip = said.split()
    assert Path(installed_part).is_relative_to(into)
    assert Path(pip).is_relative_to(site_packages)


def test_an_expected_package_that_the_machine_lacks_is_reported(
    tmp_path: Path, machine: Path
) -> None:
    for path in machine.parents[1].glob("lib/python*/site-packages/torch*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = install_there(machine, parts_of(tmp_path), tmp_path / "environment")
    assert done.returncode == 1
    assert "PartsError: This machine lacks packages that it was expected to have: torch" in (
        done.stderr
    )
    assert "--have" in done.stderr


def test_a_module_that_fails_to_import_is_reported(tmp_path: Path, machine: Path) -> None:
    into = tmp_path / "environment"
    done = install_there(machine, parts_of(tmp_path, part="import nowhere"), into)
    assert done.returncode == 1
    assert "part: ModuleNotFoundError: No module named 'nowhere'" in done.stderr
    assert "sentencepiece --replace NAME" in done.stderr
    assert not (into / "installed.json").exists()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"python": "3.99"}, r"for Python 3\.99 on .*this is Python 3.*Collect them with --python"),
        ({"machine": "s390x"}, r"on s390x; this is .*--machine"),
    ],
)
def test_parts_for_another_machine_or_python_are_refused(
    tmp_path: Path, other: dict[str, str], said: str
) -> None:
    parts = parts_of(tmp_path)
    replace(Manifest.read(parts), **other).write(parts)
    with pytest.raises(PartsError, match=said):
        installed(parts, tmp_path / "environment")
    assert not (tmp_path / "environment").exists()


def test_a_damaged_part_is_reported(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    (parts / "part-02").write_bytes(b"")
    with pytest.raises(PartsError, match=r"1 of \d parts .*part-02 has 0 bytes.*Copy"):
        installed(parts, tmp_path / "environment")


def test_an_environment_in_the_checkout_or_a_filled_folder_is_refused(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    with pytest.raises(PartsError, match=r"in the checkout\. Name a folder outside"):
        installed(parts, ROOT / "runs" / "environment")
    with pytest.raises(PartsError, match="has other files"):
        installed(parts, parts)


def test_parts_with_sources_that_differ_from_the_checkout_are_refused(
    tmp_path: Path, machine: Path
) -> None:
    parts, into = parts_of(tmp_path), tmp_path / "environment"
    install_there(machine, parts, into)
    (site_packages,) = into.glob("lib/python*/site-packages")
    shutil.copytree(ROOT / "trainer" / "exact", site_packages / "trainer" / "exact")
    assert "already has these parts" in install_there(machine, parts, into).stdout

    (site_packages / "trainer" / "exact" / "grids.py").write_text("older = True\n")
    refused = install_there(machine, parts, into)
    assert "PartsError: The parts have another trainer/exact/grids.py than" in refused.stderr
    assert "Collect the parts again" in refused.stderr
