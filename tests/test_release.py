"""Run the commands of docs/how-to/install-wheel.md in a folder without a checkout.

The demo uses a recipe with few steps.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import build_wheel
import pytest
import torch
import yaml

from benchmarks.gpu_check.parts import sha256_of
from transloom.cli.demo import SENTENCES

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "how-to" / "install-wheel.md"
STEPS = 8
TORCH_INDEX = os.environ.get("TORCH_INDEX")  # also used by make setup


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    asking = [sys.executable, "-m", "pip", "--retries=0", "index", "versions", "pip"]
    if subprocess.run(asking, capture_output=True, check=False).returncode:
        pytest.skip("no package index answers")
    folder = tmp_path_factory.mktemp("user") / "dist"
    build_wheel.build(folder)
    return folder


@pytest.fixture(scope="module")
def commands() -> list[str]:
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = block.replace("python3.11", sys.executable)
    if torch.version.cuda is not None:
        lines = lines.replace("-cpu.txt", "-cuda.txt")
    if TORCH_INDEX:
        lines = lines.replace("pip install", f"pip install --extra-index-url {TORCH_INDEX}")
    return lines.splitlines()


def run(command: str, folder: Path) -> str:
    """Run a command of the page in a folder with a minimal environment; return its output."""
    ours = ("PYTHON", "VIRTUAL_ENV", "TRANSLOOM", "RAY_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment |= {"PATH": os.defpath, "PIP_QUIET": "1"}
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(release: Path, commands: list[str]) -> Path:
    """Return the folder with the release and the environment that the page's commands create."""
    for command in commands[:-1]:
        run(command, release.parent)
    return release.parent


def test_the_page_lists_the_files_of_a_release(release: Path) -> None:
    names = re.findall(r"^\| `([\w.…-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(names) == len(list(release.iterdir())) == 4
    for name in names:
        assert len(list(release.glob(name.replace("…", "*")))) == 1, name


def test_the_environment_is_complete_and_has_no_checkout(installed: Path) -> None:
    python = "transloom-env/bin/python"
    run(f"{python} -m pip check", installed)
    number = run("transloom-env/bin/transloom --version", installed)
    assert re.fullmatch(r"[\d.]+\n", number)  # a release version has no commit
    where = "import transloom, deepspeed; print(transloom.__file__, deepspeed.__file__)"
    files = run(f'{python} -c "{where}"', installed).split()[-2:]
    assert all(Path(file).is_relative_to(installed / "transloom-env") for file in files)
    packages = run(f"{python} -m pip list", installed).lower()
    assert not re.search(r"^(pytest|ruff|mypy|transformers|mkdocs)\b", packages, re.MULTILINE)


def test_the_demo_runs_in_the_installed_environment(installed: Path, commands: list[str]) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "phrasebook.yaml").read_text())
    recipe["trainer"] |= {"max_steps": STEPS, "validate_every_steps": STEPS}
    recipe["checkpoints"]["every_steps"] = STEPS
    recipe["decoding"] = {"beam_size": 1, "max_length_factor": 0.1, "max_extra_length": 4}
    (installed / "phrasebook").write_text(yaml.safe_dump(recipe))  # overrides the built-in recipe
    assert commands[-1].endswith(" demo")
    shown = run(commands[-1], installed)
    assert all(f"{number} of 4: " in shown for number in range(1, 5)), shown
    assert all(f"{sentence}  →" in shown for sentence in SENTENCES), shown
    assert [p.name for p in (installed / "runs").glob("*/checkpoints/step-*")] == [
        f"step-{STEPS:08d}"
    ]


def test_pip_refuses_a_wheel_that_differs_from_the_release(
    release: Path, installed: Path, tmp_path: Path
) -> None:
    """The lock is reduced to its options and the built wheels, to avoid downloads."""
    other = shutil.copytree(release, tmp_path / "dist")
    for lock in other.glob("*.txt"):
        blocks = re.split(r"\n(?=[a-z0-9-])", lock.read_text())
        kept = [block for block in blocks if re.match(r"#|--|deepspeed|transloom", block)]
        lock.write_text("\n".join(kept).rstrip("\n") + "\n")
    pip = [installed / "transloom-env" / "bin" / "pip", "download", "--no-index", "--no-deps"]
    command = [*pip, "-r", next(other.glob("*-cpu.txt")), "--dest"]
    taken = subprocess.run([*command, tmp_path / "1"], capture_output=True, text=True, check=False)
    assert taken.returncode == 0, taken.stderr
    (wheel,) = other.glob("transloom-*.whl")
    with wheel.open("ab") as file:
        file.write(b"\0")
    refused = subprocess.run(
        [*command, tmp_path / "2"], capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def test_the_deepspeed_wheel_is_reproducible_and_equals_make_setups(
    release: Path, installed: Path, tmp_path: Path
) -> None:
    pins = build_wheel.read_pins((ROOT / "locks" / "cpu.txt").read_text())
    build_wheel.build_deepspeed(pins["deepspeed"], tmp_path)
    (again,) = tmp_path.glob("deepspeed-*.whl")
    assert sha256_of(again) == sha256_of(release / again.name)
    (theirs,) = (installed / "transloom-env").glob("lib/python*/site-packages/deepspeed")
    ours = Path(sys.prefix) / theirs.relative_to(installed / "transloom-env")
    assert hashes(theirs) == hashes(ours)


def hashes(folder: Path) -> dict[Path, str]:
    return {path.relative_to(folder): sha256_of(path) for path in folder.rglob("*.py")}
