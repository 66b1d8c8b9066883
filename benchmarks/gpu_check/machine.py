"""Versions and driver of the machine that runs a row."""

import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.gpu_check.outcomes import Device

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"torch": "torch", "deepspeed": "DeepSpeed", "ray": "Ray"}


@dataclass(frozen=True)
class Machine:
    """Software that a result depends on.

    Attributes:
        versions: the commit of the checkout, and the versions of the libraries.
        driver: the GPU's name and the version of NVIDIA's driver; empty without a GPU.
    """

    versions: str
    driver: str

    @classmethod
    def of(cls, device: Device) -> "Machine":
        """Describe this machine."""
        found = [_commit()]
        for package, name in PACKAGES.items():
            try:
                found.append(f"{name} {version(package)}")
            except PackageNotFoundError:
                found.append(f"no {name}")
        if device == "cpu":
            return cls(", ".join(filter(None, found)), "")
        import torch  # takes seconds, and is needed only for a GPU

        if not torch.cuda.is_available():
            return cls(", ".join(filter(None, found)), "")
        found.append(f"CUDA {torch.version.cuda}")
        found.append("NCCL " + ".".join(map(str, torch.cuda.nccl.version())))
        gpu = f"{torch.cuda.get_device_name(0)}, driver {driver_version() or 'unknown'}"
        return cls(", ".join(filter(None, found)), gpu)


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None if nvidia-smi does not report it."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return _first_line(query)


def _commit() -> str | None:
    """Return the commit of the checkout, with a + if files were changed; None without git."""
    commit = _first_line(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changed = _first_line(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"])
    return commit and f"{commit}{'+' if changed else ''}"


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None
