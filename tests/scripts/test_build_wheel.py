"""The lock files of a release list transloom's dependencies and the release's wheels."""

import hashlib
import re
from pathlib import Path

from build_wheel import OPTIONS, ROOT, TORCH, release_lock
from packaging.requirements import Requirement
from support.wheel import write_wheel

from benchmarks.gpu_check.collection import read_pins

PAD = "0" * 62
LOCK = f"""\
# A lock.
built==1.0 \\
    --hash=sha256:00{PAD}
linux-only==2 ; sys_platform == 'linux' \\
    --hash=sha256:22{PAD} \\
    --hash=sha256:21{PAD}
needed==3 \\
    --hash=sha256:33{PAD}
tool==4 \\
    --hash=sha256:44{PAD}
"""
RUNTIME = """\
# A list.
built==1.0
cuda-only==5
linux-only==2 ; sys_platform == 'linux' and python_full_version >= '3.12'
needed==3
"""


def test_a_release_lock_combines_runtime_packages_with_hashes_of_the_lock(tmp_path: Path) -> None:
    built = [write_wheel(tmp_path, "built"), write_wheel(tmp_path, "transloom", "0.1.0")]
    first, ours = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in built)
    assert release_lock("A release.", LOCK, RUNTIME, built) == (
        f"# A release.\n{OPTIONS}"
        f"built==1.0 \\\n    --hash=sha256:{first}\n"
        "linux-only==2 ; sys_platform == 'linux' and python_full_version >= '3.12' \\\n"
        f"    --hash=sha256:21{PAD} \\\n    --hash=sha256:22{PAD}\n"
        f"needed==3 \\\n    --hash=sha256:33{PAD}\n"
        f"transloom==0.1.0 \\\n    --hash=sha256:{ours}\n"
    )


def test_release_locks_contain_exactly_the_runtime_packages(tmp_path: Path) -> None:
    runtime = (ROOT / "locks" / "runtime.txt").read_text()
    wanted = {
        requirement.name: requirement
        for requirement in map(Requirement, re.findall(r"^[a-z].*", runtime, re.MULTILINE))
    }
    built = [write_wheel(tmp_path, name, "0.1.0") for name in ("transloom", "deepspeed")]
    packages = {}
    for name in TORCH:
        text = (ROOT / "locks" / f"{name}.txt").read_text()
        pins = read_pins(release_lock(name, text, runtime, built))
        packages[name] = pins.keys() - {"transloom"}
        assert all(pin.hashes for pin in pins.values())
        for package, pin in read_pins(text).items():
            if package in packages[name] - {"deepspeed"}:
                assert pins[package] == pin
    assert packages["cuda"] == wanted.keys()
    assert packages["cpu"] == wanted.keys() & read_pins((ROOT / "locks/cpu.txt").read_text()).keys()
    assert {"torch", "ray"} <= packages["cpu"] < packages["cuda"]
