"""Stage *machine*: check driver, GPU, CUDA, NCCL, and the installed versions."""

import re
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.gpu_check.kernels_stage import BOUNDS, DTYPES, largest_difference
from benchmarks.gpu_check.machine import ROOT, driver_version
from benchmarks.gpu_check.outcomes import (
    CannotRunError,
    Measurement,
    Work,
    WrongResultError,
    within,
)

LOCKED = ("torch", "numpy", "deepspeed", "ray", "sentencepiece", "triton")


def driver(work: Work) -> Measurement:
    if not work.is_gpu:
        raise CannotRunError("a CPU has no driver")
    if not torch.cuda.is_available():
        raise WrongResultError(
            f"torch {torch.__version__} finds no GPU. Install a build of torch for CUDA, and check "
            "the output of `nvidia-smi`."
        )
    found = driver_version()
    if found is None:
        raise WrongResultError(
            "`nvidia-smi` reports no version of the driver. Install the driver with `nvidia-smi`."
        )
    properties = torch.cuda.get_device_properties(0)
    detail = f"{properties.name}, {torch.cuda.device_count()} in all, driver {found}"
    return Measurement(properties.total_memory / 2**30, "GiB", detail)


def product(work: Work) -> Measurement:
    """Compare a matrix product on the device with fp64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for precision, dtype in DTYPES.items():
        left, right = (torch.randn(256, 256, generator=generator).to(dtype) for _ in range(2))
        found = left.to(work.device) @ right.to(work.device)
        difference = largest_difference(found, left.double() @ right.double())
        worst = max(worst, difference / BOUNDS[precision])
    return within(worst, 1.0, "of the bound")


def all_reduce(work: Work) -> Measurement:
    from trainer.process.distributed import process_group
    from trainer.process.placement import Placement

    placement = Placement(device=work.device)
    with process_group(placement, timedelta(seconds=60)):
        value = torch.ones(1000, device=placement.torch_device)
        torch.distributed.all_reduce(value)
        total = float(value.sum())
    if total != 1000:
        raise WrongResultError(f"the sum over one rank is {total:g}, expected 1000")
    return Measurement(detail=placement.backend)


def locked(work: Work) -> Measurement:
    """Compare the installed versions with the lock for this device."""
    name = "cuda" if work.is_gpu else "cpu"
    lock = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / f"locks/{name}.txt").read_text(), re.M))
    differ = []
    for package in (package for package in LOCKED if package in lock):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "none"
        if found.partition("+")[0] != lock[package].partition("+")[0]:
            differ.append(f"{package} {found} instead of {lock[package]}")
    if differ:
        raise CannotRunError(f"other versions than in the lock are installed: {', '.join(differ)}")
    return Measurement(float(len(lock)), "packages in the lock")
