"""Fill dist/ with a release: the files with which transloom can be installed without a clone.

    transloom-VERSION-….whl     transloom
    deepspeed-VERSION-….whl     DeepSpeed, which is published as source only, built from that source
    transloom-VERSION-cpu.txt   transloom and its packages, each with the sha256 of its files
    transloom-VERSION-cuda.txt  the same, with torch for CUDA

`pip install -r` of one of the two files installs transloom. docs/how-to/install-wheel.md has the
commands.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from packaging.utils import parse_wheel_filename  # noqa: E402
from sizes import WHEEL  # noqa: E402

from benchmarks.gpu_check.collection import BUILT, build_deepspeed, read_pins  # noqa: E402
from benchmarks.gpu_check.parts import PartsError, sha256_of  # noqa: E402

DIST = ROOT / "dist"
# Options for pip: refuse files without a hash, build nothing, and search the lock's own folder.
OPTIONS = "--require-hashes\n--only-binary :all:\n--find-links .\n"
TORCH = {"cpu": "torch for CPU", "cuda": "torch for CUDA"}


def release_lock(title: str, lock: str, runtime: str, built: list[Path]) -> str:
    """Return a lock of the packages that transloom needs, and of the built wheels.

    Args:
        lock: the text of locks/cpu.txt or locks/cuda.txt.
        runtime: the text of locks/runtime.txt: names, versions and markers.
        built: wheels next to the lock; each replaces the files that `lock` has for its package.
    """
    pins = read_pins(lock)
    blocks = {}
    for name, marker in re.findall(r"^([a-z0-9.-]+)==[^ \n]+( ; .+)?$", runtime, re.MULTILINE):
        if name in pins:  # only one of the locks has packages for CUDA
            blocks[name] = _block(name, pins[name].version, sorted(pins[name].hashes), marker)
    for wheel in built:
        name, version, *_ = parse_wheel_filename(wheel.name)
        blocks[name] = _block(name, str(version), [sha256_of(wheel)])
    return "".join([f"# {title}\n", OPTIONS, *(blocks[name] for name in sorted(blocks))])


def _block(name: str, version: str, hashes: list[str], marker: str = "") -> str:
    lines = [f"{name}=={version}{marker}", *(f"    --hash=sha256:{one}" for one in hashes)]
    return " \\\n".join(lines) + "\n"


def build(folder: Path) -> None:
    """Replace a folder by a release.

    Raises:
        PartsError: a wheel cannot be built.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    hatchling = [sys.executable, "-m", "hatchling", "build", "--target=wheel", "--directory"]
    subprocess.run([*hatchling, folder], cwd=ROOT, stderr=subprocess.DEVNULL, check=True)
    locks = {name: (ROOT / "locks" / f"{name}.txt").read_text() for name in ("runtime", *TORCH)}
    build_deepspeed(read_pins(locks["cpu"])[BUILT], folder)
    built = sorted(folder.glob("*.whl"))
    (version,) = (parse_wheel_filename(w.name)[1] for w in built if w.name.startswith("transloom-"))
    for name, torch in TORCH.items():
        title = f"transloom {version} with {torch}: pip install -r THIS-FILE"
        text = release_lock(title, locks[name], locks["runtime"], built)
        (folder / f"transloom-{version}-{name}.txt").write_text(text)


def summary(folder: Path) -> list[str]:
    """Return lines with the files of a release and the size of an installation."""
    lines = [f"{folder.relative_to(ROOT)}/ has a release:"]
    for file in sorted(folder.iterdir(), key=lambda file: (file.suffix == ".txt", file.name)):
        locked = re.findall("^[a-z]", file.read_text(), re.M) if file.suffix == ".txt" else []
        packages = f"  {len(locked)} packages" if locked else ""
        lines.append(f"  {file.stat().st_size / 1e6:4.1f} MB  {file.name}{packages}")
    lines += [f"An installation with {torch}: {WHEEL[name]}." for name, torch in TORCH.items()]
    return [*lines, "Install it without a clone: docs/how-to/install-wheel.md"]


if __name__ == "__main__":
    try:
        build(DIST)
    except PartsError as error:
        sys.exit(str(error))
    print("\n".join(summary(DIST)))
