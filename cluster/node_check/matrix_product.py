"""Repeated products of fixed matrices: their bits and their speed.

The matrices are functions of their size, without random numbers. Devices of the same kind (model,
torch build, threads) therefore compute the same bits. A device that differs is defective.
"""

import hashlib
import math
import os
import platform
import time
from typing import Literal

import torch

from cluster.node_check.figures import CheckLevel, Precision, ProductFigures
from foundation.cpu_info import cpu_fields

SECONDS: dict[CheckLevel, float] = {"quick": 0.3, "full": 3.0}
LEAST_REPEATS = 3
# For one thread: a product takes less than a millisecond, so other processes rarely interrupt it.
CPU_SIZE = 256
GPU_SIZE = 4096
# Multiples modulo a prime, mixed by a shift, have no short period and fill all bits of a mantissa.
PRIME, FACTORS = 2_147_483_647, (48_271, 69_621)
# Variables that change the kernels of a CPU.
KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "DNNL_MAX_CPU_ISA",
)
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure_products(
    device: Literal["cpu", "cuda"], threads: int, level: CheckLevel
) -> list[ProductFigures]:
    """Multiply matrices repeatedly on this process's device, in each precision."""
    torch.set_num_threads(threads)
    if device == "cpu":
        size = CPU_SIZE * math.ceil(math.sqrt(threads))
        return [_measure("CPU", torch.device("cpu"), size, "fp32", cpu_kind(threads), level)]
    cuda = torch.device("cuda", 0)
    kind = _gpu_kind(cuda)
    products = [
        _measure(visible_gpu(), cuda, GPU_SIZE, precision, kind, level) for precision in DTYPES
    ]
    torch.cuda.empty_cache()
    return products


def visible_gpu() -> str:
    """Return the name in messages of the GPU that this process uses."""
    return f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES', '0')}"


def _measure(
    name: str,
    device: torch.device,
    size: int,
    precision: Precision,
    kind: tuple[str, str],
    level: CheckLevel,
) -> ProductFigures:
    left, right = (matrix(size, n).to(device, DTYPES[precision]) for n in range(len(FACTORS)))
    first = multiply(left, right)
    fastest, repeatable, repeats = math.inf, True, 0
    deadline = time.perf_counter() + SECONDS[level] / (1 if device.type == "cpu" else len(DTYPES))
    while repeats < LEAST_REPEATS or time.perf_counter() < deadline:
        _synchronize(device)
        since = time.perf_counter()
        product = multiply(left, right)
        _synchronize(device)
        fastest = min(fastest, time.perf_counter() - since)
        repeatable = repeatable and torch.equal(product, first)
        repeats += 1
    return ProductFigures(
        device=name,
        kind=f"{kind[0]}, {precision}",
        kind_name=kind[1],
        precision=precision,
        digest=digest(first),
        repeatable=repeatable,
        flops_per_second=2 * size**3 / fastest,
    )


def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the product whose bits and speed are compared."""
    return left @ right


def matrix(size: int, number: int) -> torch.Tensor:
    """Return a square matrix of numbers between -1 and 1, which only depend on the arguments."""
    values = (torch.arange(size * size, dtype=torch.int64) + 1) * FACTORS[number] % PRIME
    values = (values ^ (values >> 13)) * FACTORS[1 - number] % PRIME
    return (values.double() / PRIME * 2 - 1).float().view(size, size)


def digest(values: torch.Tensor) -> str:
    """Return a digest of a tensor's bits."""
    data = values.cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()


def cpu_kind(threads: int) -> tuple[str, str]:
    """Return the kind of this CPU, and a short form for messages."""
    model, flags = _cpu_model()
    build = f"torch {torch.__version__}"
    settings = [f"{name}={value}" for name in KERNEL_VARIABLES if (value := os.environ.get(name))]
    described = [
        *(model, flags, build, torch.__config__.show(), torch.backends.cpu.get_cpu_capability()),
        *(f"{threads} threads", *settings),
    ]
    name = f"{model}, {build}, {threads} {'thread' if threads == 1 else 'threads'}"
    return hashlib.sha256("\n".join(described).encode()).hexdigest(), name


def _gpu_kind(device: torch.device) -> tuple[str, str]:
    properties = torch.cuda.get_device_properties(device)
    build = f"torch {torch.__version__}"
    capability = f"{properties.major}.{properties.minor}"
    described = [
        *(properties.name, capability, str(properties.multi_processor_count)),
        *(build, str(torch.version.cuda), torch.__config__.show()),
    ]
    name = f"{properties.name}, {build}"
    return hashlib.sha256("\n".join(described).encode()).hexdigest(), name


def _cpu_model() -> tuple[str, str]:
    """Return the model of this CPU, and its instruction sets."""
    fields = cpu_fields()
    if not fields:
        return platform.processor() or platform.machine(), ""
    model = fields.get("model name") or fields.get("CPU part") or platform.machine()
    numbers = [fields.get(name, "") for name in ("cpu family", "model", "stepping")]
    flags = fields.get("flags") or fields.get("Features") or ""
    return model, " ".join([*numbers, *sorted(flags.split())])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
