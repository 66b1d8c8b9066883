"""Gather the wheels that a machine without a package index lacks, on a machine that has an index.

    locks/cuda.txt ──pip download──▶ wheels ─┐
    our sources ──build──▶ wheel             ├──split──▶ parts and manifest, to be carried there
    DeepSpeed's sources ──build──▶ wheel ────┘

A wheel is collected if the machine needs the package and does not have it. Files from an earlier
call are kept if their sha256 is in the lock.
"""

import argparse
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu_check.parts import (
    MANIFEST,
    MIB,
    Expected,
    Manifest,
    PartsError,
    Piece,
    difference,
    piece_of,
    split,
)

if TYPE_CHECKING:
    from benchmarks.gpu_check.collection import Pin
    from benchmarks.gpu_check.wheels import Target

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "locks" / "cuda.txt"
HAVE = Path(__file__).with_name("machine_packages.txt")  # packages of the machine, one per line
REPLACE = ("numpy", "sentencepiece")
TRANSFER_BYTES = 64 * MIB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `collect`."""
    parser.description = (
        "Gather the wheels that a machine without a package index lacks, and split them into parts "
        "of at most 24 MiB. Run this command with the Python of `make setup`, on a machine with a "
        "package index. To continue after an interruption, repeat the command."
    )
    parser.add_argument(
        "--python",
        default="3.12",
        metavar="X.Y",
        help="Python version of the machine without an index (default: %(default)s)",
    )
    parser.add_argument(
        "--machine",
        default="x86_64",
        help="processor of that machine, as `uname -m` prints it (default: %(default)s)",
    )
    parser.add_argument(
        "--glibc",
        default="2.28",
        metavar="2.N",
        help="oldest glibc version that the machine may have (default: %(default)s)",
    )
    parser.add_argument(
        "--have",
        action="append",
        metavar="NAME[==VERSION]",
        help="package that the machine already has; repeat the option for several packages "
        f"(default: those in {HAVE.relative_to(ROOT)})",
    )
    parser.add_argument(
        "--replace",
        action="append",
        metavar="NAME",
        help="package to collect in our pinned version if the machine has another version; repeat "
        f"the option for several packages (default: {' '.join(REPLACE)})",
    )
    parser.add_argument(
        "--into",
        type=Path,
        default=Path("gpu-parts"),
        metavar="FOLDER",
        help="folder for the parts and their manifest (default: %(default)s)",
    )


def collect(arguments: argparse.Namespace) -> int:
    """Gather the parts, and print the command to run on the other machine.

    Raises:
        PartsError: something is missing; what was gathered so far is kept.
    """
    try:
        import hatchling  # noqa: F401

        from benchmarks.gpu_check.collection import ROOTS, Collection, read_pins
    except ModuleNotFoundError as error:
        raise PartsError(
            f"This Python has no package {error.name}; expected the Python of `make setup`. "
            "Run .venv/bin/python scripts/gpu_check collect"
        ) from None
    pins = read_pins(LOCK.read_text())
    target = target_of(arguments, pins)
    print(f"Collecting for Python {target.python} on {target.machine}, glibc 2.{target.glibc}")
    wheels = arguments.into / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    collection = Collection(wheels.resolve(), target, pins)
    collection.build_ours()
    files = collection.complete(ROOTS)
    on_machine = {
        name: Expected(version, pins[name].version if name in pins else None)
        for name, version in target.has.items()
    }
    deviations = [difference(name, one.version, one.pinned) for name, one in on_machine.items()]
    manifest = Manifest(
        python=target.python,
        machine=target.machine,
        files=[piece_of(path) for path in files],
        parts=split(files, arguments.into),
        on_machine=on_machine,
        deviations=[sentence for sentence in deviations if sentence],
    )
    manifest.write(arguments.into)
    print(summary(manifest, arguments.into, _checkout_bytes()))
    return 0


def target_of(arguments: argparse.Namespace, pins: Mapping[str, "Pin"]) -> "Target":
    """Return the description of the target machine that the options specify.

    Raises:
        PartsError: an option has an invalid value.
    """
    from benchmarks.gpu_check.wheels import Target

    if not re.fullmatch(r"3\.\d+", arguments.python):
        raise PartsError(f"--python {arguments.python}: expected two numbers, such as 3.12")
    if not (glibc := re.fullmatch(r"2\.(\d+)", arguments.glibc)):
        raise PartsError(
            f"--glibc {arguments.glibc}: expected a version such as 2.28. Run `ldd --version` on "
            "the machine to see its version."
        )
    has = dict(_claim(text) for text in arguments.have or HAVE.read_text().split())
    for name in map(_canonical, REPLACE if arguments.replace is None else arguments.replace):
        if name not in has:
            continue
        if name not in pins:
            raise PartsError(
                f"--replace {name}: {LOCK.name} has no version of {name}. Omit this option."
            )
        if difference(name, has[name], pins[name].version):
            del has[name]
    return Target(arguments.python, arguments.machine, int(glibc[1]), has)


def summary(manifest: Manifest, folder: Path, checkout_bytes: int) -> str:
    """Describe the collected wheels, the number of transfers, and deviations from our pins."""
    parts = manifest.parts
    alone = transfers(parts, TRANSFER_BYTES)
    beside = transfers(parts, TRANSFER_BYTES - checkout_bytes) or "impossible"
    lines = [
        f"{len(manifest.files)} wheels, {sum(part.size for part in parts) / MIB:.1f} MiB, "
        f"in {len(parts)} parts: {folder / parts[0].name} to {parts[-1].name}, and {MANIFEST}",
        f"Transfers of at most {TRANSFER_BYTES // MIB} MiB: {alone} for the parts alone, "
        f"{beside} if each also has this checkout ({checkout_bytes / MIB:.1f} MiB)",
    ]
    if manifest.deviations:
        lines += ["Differs from locks/cuda.txt:", *(f"  {one}" for one in manifest.deviations)]
    run = f"scripts/gpu_check run --parts {folder} --results results.json"
    return "\n".join([*lines, f"Next, on the machine: {run}"])


def transfers(parts: Iterable[Piece], room: int) -> int | None:
    """Return the number of transfers that the parts need if they are sent in their order.

    Return None if a part does not fit into a transfer.

    Args:
        room: the number of bytes that a transfer has for parts.
    """
    count, left = 0, 0
    for part in parts:
        if part.size > room:
            return None
        if part.size > left:
            count, left = count + 1, room
        left -= part.size
    return count


def _claim(text: str) -> tuple[str, str | None]:
    from packaging.version import InvalidVersion, Version

    name, equal, version = text.partition("==")
    try:
        return _canonical(name), str(Version(version)) if equal else None
    except (InvalidVersion, ValueError):
        raise PartsError(f"--have {text}: expected NAME or NAME==VERSION") from None


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name, validate=True)


def _checkout_bytes() -> int:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return sum(path.stat().st_size for path in paths if path.is_file())
