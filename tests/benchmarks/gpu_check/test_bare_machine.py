"""The collected parts are enough for a machine that has torch, but no network and no transloom."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.bare_machine import BareMachine, install_command, plant_package, python_with
from support.command import transloom
from support.recipes import tiny_values, write_yaml
from support.wheel import write_wheel

from benchmarks.gpu_check.collection import ROOTS
from benchmarks.gpu_check.install import ROOT
from benchmarks.gpu_check.parts import Manifest
from benchmarks.gpu_check.plan import RUN_BY_STAGES
from benchmarks.gpu_check.results import read_results

pytestmark = pytest.mark.needs("namespaces")

PYTHON = "{}.{}".format(*sys.version_info)
THERE = ("torch", "numpy", "transformers")  # from this environment; sentencepiece is replaced
GPU_CHECK = ROOT / "scripts" / "gpu_check"
SKIPPED_ON_CPUS = {
    "machine/driver",
    "machine/locked",
    "kernels/sdpa_kernel_of:efficient",
    "kernels/sdpa_kernel_of:cudnn",
    "kernels/varlen_fa3",
    "kernels/pytest_gpu:tests/model",
    "path/one_context",
    *(f"speed/mfu:{network}" for network in ("base", "big", "gpt")),
    *(f"speed/launches:{loop}" for loop in ("fast", "exact", "verified")),
    *(f"speed/compiled:{network}" for network in ("base", "big", "gpt", "gpt-1b")),
    *(f"exact/compiled:{precision}" for precision in ("fp32", "bf16")),
    *(
        f"kernels/compiled:{network}-{precision}"
        for network in ("transformer", "decoder_only")
        for precision in ("fp32", "bf16")
    ),
}


def collect_into(folder: Path, *options: str) -> Manifest:
    command = [sys.executable, GPU_CHECK, "collect", "--into", folder, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Manifest.read(folder)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collect parts for a machine with this Python, and return their folder."""
    asking = [sys.executable, "-m", "pip", "--retries=0", "index", "versions", "pip"]
    if subprocess.run(asking, capture_output=True, check=False).returncode:
        pytest.skip("no package index answers")
    folder = tmp_path_factory.mktemp("parts")
    there = [f"--have={name}=={importlib.metadata.version(name)}" for name in THERE]
    collect_into(folder, f"--python={PYTHON}", *there, "--have=sentencepiece==0.2.2")
    return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, parts: Path) -> BareMachine:
    """Return a machine to which the parts were copied."""
    python = python_with(THERE, tmp_path_factory.mktemp("machine") / "torch")
    plant_package(python, "sentencepiece", "0.2.2", "raise ImportError('of the machine')")
    return BareMachine(python, parts)


@pytest.fixture(scope="module")
def environment(machine: BareMachine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the parts on the machine, and return the environment's folder."""
    into = tmp_path_factory.mktemp("installed") / "environment"
    before = unignored_files()
    command = install_command(machine.python, machine.read_only, into)
    done = machine.run(*command, cwd=into.parent)
    assert done.returncode == 0, done.stderr
    assert unignored_files() == before
    return into


def unignored_files() -> str:
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_machine_has_no_network_and_cannot_write_the_parts(
    machine: BareMachine, tmp_path: Path
) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    assert "unreachable" in machine.run(machine.python, "-c", code, cwd=tmp_path).stderr
    write = machine.run("touch", machine.read_only / "new", cwd=tmp_path)
    assert "Read-only" in write.stderr


def test_the_environment_has_the_versions_of_this_checkout(environment: Path, parts: Path) -> None:
    assert json.loads((environment / "deviations.json").read_text()) == []
    versions = json.loads((environment / "installed.json").read_text())["versions"]
    for name in ("deepspeed", "ray", "wandb", "webdataset", "sentencepiece", "torch"):
        assert versions[name] == importlib.metadata.version(name), name
    assert len(versions) == len(Manifest.read(parts).files) + len(THERE)


def test_a_recipe_has_the_same_curve_on_the_machine_as_here(
    machine: BareMachine, environment: Path, phrasebook: Path, tmp_path: Path
) -> None:
    recipe = write_yaml(tmp_path / "tiny.yaml", tiny_values(phrasebook))
    command = ("train", recipe, "cluster.ranks=2", "trainer.max_steps=6", "--run")
    there = machine.run(environment / "bin" / "transloom", *command, "there", cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    here = transloom(*command, "here", cwd=tmp_path)
    assert here.returncode == 0, here.stderr

    def curve(name: str) -> list[tuple[float, str]]:
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        return [(x["loss"], x["data_digest"]) for x in lines if x["kind"] == "train"]

    assert curve("there") == curve("here")
    assert len(curve("there")) == 6


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_all_stages_pass_on_the_machines_cpu(machine: BareMachine, tmp_path: Path) -> None:
    """The time limits allow for other load on the machine."""
    before = unignored_files()
    file = tmp_path / "results.json"
    limits = ("--stage-seconds", "1800", "--minutes", "55")
    command = ("run", "--device", "cpu", "--parts", machine.read_only, "--results", file, *limits)
    done = machine.run(machine.python, GPU_CHECK, *command, cwd=tmp_path)
    assert file.exists(), done.stdout[-4000:] + done.stderr
    rows = read_results(file).rows
    assert [f"{row.name}: {row.detail}" for row in rows.values() if row.result == "failed"] == []
    assert done.returncode == 0, done.stderr
    assert set(rows) == {f"{stage.name}/{row.key}" for stage in RUN_BY_STAGES for row in stage.rows}
    assert {name for name, row in rows.items() if row.result == "skipped"} <= SKIPPED_ON_CPUS
    assert unignored_files() == before, "the check leaves nothing in the checkout"


def test_parts_for_another_python_are_complete_by_an_independent_resolver(
    parts: Path, tmp_path: Path
) -> None:
    """uv resolves for the default target, with stand-ins for packages of the machine."""
    other = tmp_path / "other"
    shutil.copytree(parts / "wheels", other / "wheels", copy_function=os.link)
    manifest = collect_into(other)
    assert manifest.python == "3.12"
    carried = tmp_path / "carried"
    carried.mkdir()
    for file in manifest.files:
        (carried / file.name).symlink_to(other / "wheels" / file.name)
    for name, expected in manifest.on_machine.items():
        assert expected.pinned
        write_wheel(carried, name, expected.pinned)
    uv = [Path(sys.executable).with_name("uv"), "pip", "compile", "-", "--offline", "--no-index"]
    uv += [
        "--python-version=3.12",
        "--python-platform=x86_64-manylinux_2_28",
        "--only-binary=:all:",
    ]
    uv += [f"--find-links={carried}", "--no-annotate", "--no-header", "--quiet"]
    wanted = "\n".join(str(needed.requirement) for needed in ROOTS)
    done = subprocess.run(uv, input=wanted, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resolved = {line.partition("==")[0] for line in done.stdout.split()}
    needed = {file.name.partition("-")[0].replace("_", "-") for file in manifest.files}
    # A stand-in has no requirements, so no package may require some of the machine's packages.
    assert needed <= resolved <= needed | manifest.on_machine.keys()
