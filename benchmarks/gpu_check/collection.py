"""Download and build wheels until none is missing for a machine.

A wheel from the lock is kept if its sha256 is in the lock. The lock does not have pip, and has no
wheel of DeepSpeed, which is published as source only. The wheels of these two are kept if their
archive is intact. transloom is built at each call.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from benchmarks.gpu_check.parts import PartsError, sha256_of
from benchmarks.gpu_check.wheels import Needed, Target, Wheel, closure, unfit

ROOT = Path(__file__).resolve().parents[2]
FOR_TESTS = ("pytest", "pytest-timeout", "hypothesis")  # packages that `pytest -m gpu` needs
BUILT = "deepspeed"
OURS = "transloom"
WITH_EXTRAS = f"{OURS}[serve]"  # the row `path/serve` needs this extra
INSTALLER = "pip"
FILE_TIME = "1580601600"  # of all files in a built wheel; hatchling uses the same time
ROOTS = (
    *(Needed(Requirement(name), "scripts/gpu_check") for name in (WITH_EXTRAS, INSTALLER)),
    *(Needed(Requirement(name), "pytest -m gpu") for name in FOR_TESTS),
)


@dataclass(frozen=True)
class Pin:
    """Version of a package in a lock, and the sha256 of each of its files."""

    version: str
    hashes: frozenset[str]


def read_pins(lock: str) -> dict[str, Pin]:
    """Return the pins in the text of a lock, by package name."""
    pins = {}
    for block in re.split(r"\n(?=[a-z0-9])", lock):
        if named := re.match(r"([a-z0-9.-]+)==([^ ]+)", block):
            pins[named[1]] = Pin(named[2], frozenset(re.findall(r"sha256:([0-9a-f]{64})", block)))
    return pins


@dataclass(frozen=True)
class Collection:
    """Folder of wheels for a target machine.

    Attributes:
        pins: the pins of the lock, by package name.
    """

    folder: Path
    target: Target
    pins: Mapping[str, Pin]

    def build_ours(self) -> None:
        """Build transloom's wheel."""
        for old in self.folder.glob(f"{OURS}-*.whl"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            build = [sys.executable, "-m", "hatchling", "build", "--target=wheel", "--directory"]
            _call([*build, made], "build transloom", {})
            self._take_built(Path(made))

    def complete(self, roots: Sequence[Needed]) -> list[Path]:
        """Return the wheels that the target needs for the roots and lacks; transloom's is last.

        Raises:
            PartsError: a requirement cannot be met, or a wheel cannot be made.
        """
        tried: set[str] = set()
        while True:
            wheels = self._present()
            found = closure(wheels, self.target, roots)
            if not found.lacking:
                break
            names = {needed.name for needed in found.lacking}
            hopeless = names & tried | names - self._versions().keys()
            if why := [str(needed) for needed in found.lacking if needed.name in hopeless]:
                raise PartsError(
                    f"locks/cuda.txt does not satisfy: {', '.join(why)}. Renew the lock with "
                    "`make lock`, or name the machine's packages with --have NAME==VERSION."
                )
            self._get(names)
            tried |= names
        reached = [wheels[name] for name in sorted(found.reached)]
        if bad := unfit(reached, self.target):
            raise PartsError(
                f"{'; '.join(bad)}. Expected wheels for Python {self.target.python} on "
                f"{self.target.machine}. Name another --python, or renew the locks."
            )
        return sorted((wheel.path for wheel in reached), key=self._rarely_changed_first)

    def _versions(self) -> dict[str, str]:
        own = {INSTALLER: importlib.metadata.version(INSTALLER)}
        return {name: pin.version for name, pin in self.pins.items()} | own

    def _rarely_changed_first(self, path: Path) -> tuple[bool, str]:
        return (path.name.startswith(f"{OURS}-"), path.name)

    def _present(self) -> dict[str, Wheel]:
        """Return the wheels in the folder that fit target and lock; remove damaged wheels."""
        wheels = {}
        for path in sorted(self.folder.glob("*.whl")):
            try:
                name, version, _, tags = parse_wheel_filename(path.name)
            except InvalidWheelFilename:
                continue
            if name != OURS and str(version) != self._versions().get(name):
                continue
            if not tags & self.target.tags:
                continue
            if not self._is_intact(path, name):
                print(f"  {path.name} is damaged, and is downloaded or built again")
                path.unlink()
                continue
            wheels[name] = Wheel.read(path)
        return wheels

    def _is_intact(self, path: Path, name: str) -> bool:
        if name in (OURS, BUILT, INSTALLER):
            try:
                with zipfile.ZipFile(path) as archive:
                    return archive.testzip() is None
            except (zipfile.BadZipFile, zlib.error):
                return False
        return sha256_of(path) in self.pins[name].hashes

    def _get(self, names: set[str]) -> None:
        if BUILT in names:
            print(f"  building {BUILT} from its sources", flush=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as made:
                build_deepspeed(self.pins[BUILT], Path(made))
                self._take_built(Path(made))
        if INSTALLER in names:
            self._download([f"{INSTALLER}=={self._versions()[INSTALLER]}"])
        if locked := sorted(names - {BUILT, INSTALLER}):
            self._download([_locked(name, self.pins[name]) for name in locked], "--require-hashes")

    def _download(self, lines: list[str], *options: str) -> None:
        names = ", ".join(line.partition("==")[0] for line in lines)
        print(f"  downloading wheels ({len(lines)}): {names}", flush=True)
        platforms = [f"--platform={name}" for name in self.target.platforms]
        command = ["download", "--no-deps", "--only-binary=:all:", *options, *platforms]
        command += ["--implementation=cp", f"--python-version={self.target.python}"]
        _pip(command, lines, self.folder)

    def _take_built(self, made: Path) -> None:
        (wheel,) = made.glob("*.whl")
        print(f"  built: {wheel.name}", flush=True)
        wheel.replace(self.folder / wheel.name)


def build_deepspeed(pin: Pin, into: Path) -> None:
    """Build DeepSpeed's wheel from its locked sources, as `make setup` does.

    torch is hidden, because the sources record its version and look for compilers. The wheel has no
    compiled operators, runs on any platform, and has the same bytes after each build.

    Raises:
        PartsError: pip cannot get or build the sources.
    """
    command = ["wheel", "--no-deps", "--no-cache-dir", "--no-build-isolation"]
    command += ["--require-hashes", f"--no-binary={BUILT}"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "torch.py").write_text("raise ImportError('hidden from the build')\n")
        variables = {"DS_BUILD_OPS": "0", "PYTHONPATH": folder}
        variables |= {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": FILE_TIME}
        _pip(command, [_locked(BUILT, pin)], into, **variables)


def _locked(name: str, pin: Pin) -> str:
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in sorted(pin.hashes))
    return f"{name}=={pin.version} {hashes}"


def _pip(command: list[str], lines: Iterable[str], into: Path, **variables: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text("\n".join(lines) + "\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        arguments = ["--quiet", "-r", str(requirements)]
        where = f"--{'dest' if command[0] == 'download' else 'wheel-dir'}={into}"
        _call([*pip, *command, *arguments, where], f"pip {command[0]}", variables)


def _call(command: list[str], what: str, variables: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise PartsError(
            f"Cannot {what}: exit code {done.returncode}.\n{said}\n"
            "Files that were collected so far are kept. Repeat the command."
        )
