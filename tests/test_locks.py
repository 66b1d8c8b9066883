"""Lock files: all packages have hashes, and their versions satisfy pyproject.toml."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("build", "cpu", "cuda", "lab")
CUDA_ALONE = re.compile(r"triton|nvidia-.+|cuda-.+")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, str]:
    """Return the versions in a lock file by package."""
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+)", text, re.MULTILINE))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def asked_for(requirements: list[str]) -> dict[str, SpecifierSet]:
    found = {normal(one.name): one.specifier for one in map(Requirement, requirements)}
    assert all(found.values()), requirements
    return found


def assert_all_are_held(wanted: dict[str, SpecifierSet], versions: dict[str, str]) -> None:
    for package, allowed in wanted.items():
        assert versions[package] in allowed, package


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_contains_only_versions_and_hashes(name: str) -> None:
    """A lock has no URLs, because a package is identified by its hash."""
    lines = (ROOT / "locks" / f"{name}.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    package = re.compile(r"[a-z0-9.-]+==[^ ]+( ; .+)? \\")
    hashed = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert package.fullmatch(lines[0])
    for line, after in zip(lines, [*lines[1:], lines[0]], strict=True):
        assert package.fullmatch(line) or hashed.fullmatch(line), line
        # A hash follows each package, and a backslash precedes each hash.
        assert bool(hashed.fullmatch(after)) == line.endswith("\\"), line


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_lock_satisfies_the_requirements_of_the_project(name: str) -> None:
    project = PROJECT["project"]
    wanted = asked_for(project["dependencies"] + project["optional-dependencies"]["dev"])
    versions = {package: version.partition("+")[0] for package, version in locked(name).items()}
    assert_all_are_held(wanted, versions)


def test_build_requirements_are_locked() -> None:
    wanted = asked_for(PROJECT["dependency-groups"]["build"] + PROJECT["build-system"]["requires"])
    assert_all_are_held(wanted, locked("build"))


def test_lab_requirements_are_locked() -> None:
    assert_all_are_held(asked_for(PROJECT["dependency-groups"]["lab"]), locked("lab"))


def test_only_libraries_whose_private_names_are_used_are_pinned() -> None:
    wanted = asked_for(PROJECT["project"]["dependencies"])
    exact = {name for name, allowed in wanted.items() if str(allowed).startswith("==")}
    assert exact == {"torch", "deepspeed", "ray", "sentencepiece", "webdataset"}
    for name in wanted.keys() - exact:
        assert {one.operator for one in wanted[name]} == {">=", "<"}, name


def test_the_cpu_and_cuda_locks_differ_only_in_torch_and_its_packages() -> None:
    build, cpu, cuda, _ = map(locked, LOCKS)
    both = {name: version for name, version in cuda.items() if not CUDA_ALONE.fullmatch(name)}
    assert {**cpu, "torch": ""} == {**both, "torch": ""}
    assert cpu["torch"] == cuda["torch"] + "+cpu"
    assert {name: cpu.get(name, version) for name, version in build.items()} == build


RUNTIME = [
    Requirement(line)
    for line in (ROOT / "locks" / "runtime.txt").read_text().splitlines()
    if not line.startswith("#")
]


def test_the_runtime_packages_have_the_versions_of_the_locks() -> None:
    versions = {one.name: str(one.specifier).removeprefix("==") for one in RUNTIME}
    cuda = locked("cuda")
    assert versions == {name: cuda[name] for name in versions}
    assert len(versions) == len(RUNTIME) < len(cuda)
    assert {name for name in cuda if CUDA_ALONE.fullmatch(name)} <= versions.keys()


def test_runtime_packages_equal_the_requirements_of_installed_packages() -> None:
    """Compare installed metadata with uv's resolution, which covers all Python versions."""
    here = {one.name for one in RUNTIME if one.marker is None or one.marker.evaluate()}
    of_torch = {name for name in here if CUDA_ALONE.fullmatch(name)}  # not for CPU
    assert closure(["transloom"]) - of_torch == here - of_torch


def closure(names: list[str]) -> set[str]:
    """Return all packages that the named ones require here, directly or indirectly."""
    seen: set[tuple[str, str]] = set()
    pending = [(name, "") for name in names]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for one in map(Requirement, importlib.metadata.requires(name) or []):
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                pending += [(normal(one.name), wanted) for wanted in ("", *one.extras)]
    return {name for name, _ in seen} - set(names)


def test_setup_installs_by_the_locks_or_offline() -> None:
    """Reads the commands that make prints in a dry run."""
    command = ["make", "-n", "-W", "pyproject.toml", "setup"]
    says = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installs = [line for line in says.splitlines() if re.search(r"pip\b.* install", line)]
    assert len(installs) == 3
    for line in installs:
        assert "--no-build-isolation" in line
        by_lock = "--require-hashes" in line and re.search(r"-r locks/", line)
        assert by_lock or "--no-index --no-deps --editable ." in line, line
