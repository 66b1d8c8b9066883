"""Options of `collect` describe a machine; invalid ones are refused with a remedy."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check.collect import LOCK, ROOT, add_arguments, target_of
from benchmarks.gpu_check.collection import read_pins
from benchmarks.gpu_check.parts import PartsError
from benchmarks.gpu_check.wheels import Target

COLLECT = f"""
import argparse, sys; sys.path.insert(0, {str(ROOT)!r})
from benchmarks.gpu_check.collect import add_arguments, collect
parser = argparse.ArgumentParser()
add_arguments(parser)
collect(parser.parse_args())
"""


def target(*options: str) -> Target:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return target_of(parser.parse_args(options), read_pins(LOCK.read_text()))


def test_packages_of_the_machine_are_carried_if_replaced_or_of_another_version() -> None:
    has = target().has
    assert {"torch": "2.11", "rich": None}.items() <= has.items()
    assert {"numpy", "sentencepiece", "ray"}.isdisjoint(has)
    pinned = read_pins(LOCK.read_text())["numpy"].version
    same = target("--have", f"numpy=={pinned}", "--have", "Sentence_Piece", "--have", "torch")
    assert same.has == {"numpy": pinned, "sentence-piece": None, "torch": None}
    assert target("--have=torch==2.11", "--replace=torch").has == {}
    assert target("--have=numpy==2.5.2", "--replace=triton").has == {"numpy": "2.5.2"}


def test_packages_expected_on_the_machine_are_in_the_lock() -> None:
    assert target().has.keys() <= read_pins(LOCK.read_text()).keys()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--python", "3.12.1"], r"--python 3\.12\.1: expected two numbers"),
        (["--glibc", "2.x"], r"--glibc 2\.x: expected a version such as 2\.28"),
        (["--have", "torch==new"], "--have torch==new: expected NAME or NAME==VERSION"),
        (["--have", "torch>=2"], "--have torch>=2: expected NAME"),
        (["--have", "jax", "--replace", "jax"], r"--replace jax: .* no version of jax. Omit"),
    ],
)
def test_invalid_options_are_reported(options: list[str], said: str) -> None:
    with pytest.raises(PartsError, match=said):
        target(*options)


def test_a_python_without_hatchling_is_refused_and_a_suitable_one_named(tmp_path: Path) -> None:
    """`-S` leaves out all packages; the module itself imports none of them."""
    command = [sys.executable, "-S", "-B", "-c", COLLECT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "PartsError: This Python has no package hatchling" in done.stderr
    assert ".venv/bin/python scripts/gpu_check collect" in done.stderr
    assert not list(tmp_path.iterdir())
