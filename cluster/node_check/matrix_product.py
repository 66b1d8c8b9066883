"""Repeated products of fixed matrices, whose bits are compared.

The matrices are functions of their size, without random numbers. Devices of the same kind (model,
torch build, threads) therefore compute the same bits. A device that differs is defective.
"""

import hashlib
import math
import os
import platform
import time

import torch

from cluster.node_check.figures import CheckLevel, Device, Precision, ProductFigures
from foundation.cpu_info import cpu_fields
from foundation.wording import counted

SECONDS: dict[CheckLevel, float] = {"quick": 0.3, "full": 3.0}
LEAST_REPEATS = 3
CPU_SIZE = 256  # rows of a matrix with one thread; more threads use larger matrices
GPU_SIZE = 4096
# Multiples modulo a prime, mixed by a shift, have no short period and fill all bits of a mantissa.
PRIME, FACTORS = 2_147_483_647, (48_271, 69_621)
# Environment variables that determine which kernels a CPU uses.
KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "DNNL_MAX_CPU_ISA",
)
PRECISIONS: dict[Device, tuple[Precision, ...]] = {"cpu": ("fp32",), "cuda": ("fp32", "bf16")}
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure_products(device: Device, threads: int, level: CheckLevel) -> tuple[ProductFigures, ...]:
    """Multiply matrices repeatedly on this process's device; on a GPU, in each precision.

    Args:
        threads: the number of CPU threads that torch computes with.
    """
    torch.set_num_threads(threads)
    if device == "cpu":
        name, size = "CPU", CPU_SIZE * math.ceil(math.sqrt(threads))
        kind, kind_name = cpu_kind(threads)
    else:
        name, size = visible_gpu(), GPU_SIZE
        kind, kind_name = _gpu_kind()
    precisions, products = PRECISIONS[device], []
    for precision in precisions:
        seconds = SECONDS[level] / len(precisions)
        first, repeatable = _repeat(size, device, DTYPES[precision], seconds)
        products.append(
            ProductFigures(name, f"{kind}, {precision}", kind_name, precision, first, repeatable)
        )
    if device == "cuda":
        torch.cuda.empty_cache()
    return tuple(products)


def visible_gpu() -> str:
    """Return the name, for messages, of the GPU that this process uses."""
    return f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES', '0')}"


def _repeat(size: int, device: Device, dtype: torch.dtype, seconds: float) -> tuple[str, bool]:
    """Repeat the product of two matrices for `seconds`, or until its bits differ.

    Returns:
        The digest of the first product, and whether all repetitions had the same bits.
    """
    left, right = (matrix(size, number).to(device, dtype) for number in range(len(FACTORS)))
    first = multiply(left, right)
    repeatable, repeats = True, 0
    deadline = time.perf_counter() + seconds
    while repeatable and (repeats < LEAST_REPEATS or time.perf_counter() < deadline):
        repeatable = torch.equal(multiply(left, right), first)
        repeats += 1
    return digest(first), repeatable


def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the product whose bits are compared."""
    return left @ right


def matrix(size: int, number: int) -> torch.Tensor:
    """Return a square matrix of numbers between -1 and 1 that depend only on the arguments."""
    values = (torch.arange(size * size, dtype=torch.int64) + 1) * FACTORS[number] % PRIME
    values = (values ^ (values >> 13)) * FACTORS[1 - number] % PRIME
    return (values.double() / PRIME * 2 - 1).float().view(size, size)


def digest(values: torch.Tensor) -> str:
    """Return a digest of a tensor's bits."""
    data = values.cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()


def cpu_kind(threads: int) -> tuple[str, str]:
    """Return the kind of this CPU, and a short form for messages."""
    model, instructions = _cpu_model()
    settings = [f"{name}={value}" for name in KERNEL_VARIABLES if (value := os.environ.get(name))]
    name = f"{model}, torch {torch.__version__}, {counted(threads, 'thread')}"
    return _kind(name, instructions, torch.backends.cpu.get_cpu_capability(), *settings)


def _gpu_kind() -> tuple[str, str]:
    properties = torch.cuda.get_device_properties(0)
    capability = f"{properties.major}.{properties.minor}"
    name = f"{properties.name}, torch {torch.__version__}"
    return _kind(name, capability, str(properties.multi_processor_count), str(torch.version.cuda))


def _kind(name: str, *details: str) -> tuple[str, str]:
    described = "\n".join([name, torch.__config__.show(), *details])
    return hashlib.sha256(described.encode()).hexdigest(), name


def _cpu_model() -> tuple[str, str]:
    """Return the model of this CPU, and its instruction sets."""
    fields = cpu_fields()
    model = fields.get("model name") or fields.get("CPU part") or platform.processor()
    numbers = [fields.get(name, "") for name in ("cpu family", "model", "stepping")]
    flags = fields.get("flags") or fields.get("Features") or ""
    return model or platform.machine(), " ".join([*numbers, *sorted(flags.split())])
