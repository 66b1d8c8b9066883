"""Requirements of wheels are resolved for the target, whatever Python resolves them."""

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.wheel import write_wheel

from benchmarks.gpu_check.parts import PartsError
from benchmarks.gpu_check.wheels import Closure, Needed, Target, Wheel, closure, unfit

TARGET = Target("3.12", "x86_64", 28, {"torch": "2.11"})
OTHER = "3.12" if sys.version_info[:2] != (3, 12) else "3.13"


def followed(folder: Path, root: str, target: Target = TARGET) -> Closure:
    wheels = {wheel.name: wheel for wheel in map(Wheel.read, folder.glob("*.whl"))}
    return closure(wheels, target, [Needed(Requirement(root), "the test")])


def lacking(folder: Path, root: str = "app", target: Target = TARGET) -> list[str]:
    return sorted(map(str, followed(folder, root, target).lacking))


def test_a_missing_requirement_is_reported_with_the_requiring_package(tmp_path: Path) -> None:
    write_wheel(tmp_path, "app", requires=["Some_Part>=1", "there"])
    write_wheel(tmp_path, "there", requires=["deep<2"])
    assert lacking(tmp_path) == ["Some_Part>=1 (required by app)", "deep<2 (required by there)"]
    write_wheel(tmp_path, "some-part")
    write_wheel(tmp_path, "deep")
    assert followed(tmp_path, "app") == Closure({"app", "some-part", "there", "deep"}, [])


def test_markers_are_evaluated_for_the_target(tmp_path: Path) -> None:
    conditions = [
        f'python_version == "{OTHER}"',
        f'python_full_version < "{OTHER}"',
        'platform_machine == "aarch64"',
        'sys_platform == "win32"',
    ]
    required = [f"part-{n} ; {condition}" for n, condition in enumerate(conditions)]
    write_wheel(tmp_path, "app", requires=required)
    there = Target(OTHER, "aarch64", 28, {})
    assert lacking(tmp_path, target=there) == [f"part-{n} (required by app)" for n in (0, 2)]


def test_requirements_of_an_extra_are_followed_only_if_it_is_required(tmp_path: Path) -> None:
    write_wheel(tmp_path, "app", requires=["library", "middle"])
    write_wheel(tmp_path, "middle", requires=["library[fast]"])
    write_wheel(
        tmp_path, "library", requires=["plain", "quick; extra=='fast'", "odd; extra=='rare'"]
    )
    assert lacking(tmp_path) == ["plain (required by library)", "quick (required by library)"]


def test_another_version_does_not_satisfy_a_requirement(tmp_path: Path) -> None:
    write_wheel(tmp_path, "app", requires=["part>=2"])
    write_wheel(tmp_path, "part", "1.9")
    assert lacking(tmp_path) == ["part>=2 (required by app)"]


def test_a_package_of_the_machine_satisfies_a_requirement_in_any_version(tmp_path: Path) -> None:
    write_wheel(tmp_path, "app", requires=["torch==2.13.0"])
    write_wheel(tmp_path, "torch", "2.13.0", requires=["never-followed"])
    assert followed(tmp_path, "app") == Closure({"app"}, [])


def test_circular_requirements_are_resolved(tmp_path: Path) -> None:
    write_wheel(tmp_path, "app", requires=["part"])
    write_wheel(tmp_path, "part", requires=["app[more]"])
    assert lacking(tmp_path) == []


@pytest.mark.parametrize(
    ("tag", "python", "said"),
    [
        ("py3-none-any", ">=3.11", None),
        ("cp312-cp312-manylinux_2_17_x86_64", ">=3.11", None),
        ("cp39-abi3-manylinux2014_x86_64", ">=3.11", None),
        ("py3-none-linux_x86_64", ">=3.11", None),
        ("cp311-cp311-manylinux_2_17_x86_64", ">=3.11", "other platforms"),
        ("cp312-cp312-manylinux_2_34_x86_64", ">=3.11", "other platforms"),
        ("cp312-cp312-manylinux_2_17_aarch64", ">=3.11", "other platforms"),
        ("py3-none-any", ">=3.13", "requires Python >=3.13"),
    ],
)
def test_wheels_for_other_machines_are_reported(
    tmp_path: Path, tag: str, python: str, said: str | None
) -> None:
    found = unfit([Wheel.read(write_wheel(tmp_path, "part", tag=tag, python=python))], TARGET)
    assert len(found) == (said is not None)
    assert all("part-1.0" in sentence and str(said) in sentence for sentence in found)


def test_a_damaged_wheel_is_reported(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "part")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(PartsError, match=r"part-1\.0.*Remove the file"):
        Wheel.read(path)
