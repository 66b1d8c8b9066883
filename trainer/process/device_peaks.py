"""Peak rates of GPUs, the denominators of the model FLOPs utilization.

The figures are the vendor's, for dense matrix products with fp32 accumulation. Most data sheets
print figures that are twice as high and hold only for 2:4 sparsity. An entry applies only to a
device whose whole name matches: a MIG slice, a laptop GPU or a custom part has another rate.
"""

import re
from typing import Literal, NamedTuple

from trainer.config import EngineConfig
from trainer.process.placement import Placement

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class _Peaks(NamedTuple):
    """Peak rates of matrix products, in 10¹² operations a second; None if unsupported."""

    name: str  # regular expression that the driver's device name must match
    fp32: float
    tf32: float | None
    bf16: float | None
    fp16: float
    source: str  # title of NVIDIA's document


_DEVICES = (
    _Peaks(r"V100-SXM2-\d+GB", 15.7, None, None, 125, "V100 data sheet"),
    _Peaks(r"V100-PCIE-\d+GB", 14, None, None, 112, "V100 data sheet"),
    _Peaks(r"V100S-PCIE-32GB", 16.4, None, None, 130, "V100 data sheet"),
    _Peaks(r"T4", 8.1, None, None, 65, "T4 data sheet"),
    _Peaks(r"A10", 31.2, 62.5, 125, 125, "A10 data sheet"),
    _Peaks(r"A30", 10.3, 82, 165, 165, "A30 data sheet"),
    _Peaks(r"A40", 37.4, 74.8, 149.7, 149.7, "A40 data sheet"),
    _Peaks(r"RTX A6000", 38.7, 77.4, 154.8, 154.8, "GA102 architecture white paper"),
    _Peaks(
        r"A100(-SXM4-[48]0GB|-PCIE-40GB| 80GB PCIe)", 19.5, 156, 312, 312,
        "A100 data sheet",
    ),
    _Peaks(r"GeForce RTX 3090", 35.6, 35.6, 71, 71, "GA102 architecture white paper"),
    _Peaks(r"GeForce RTX 4090", 82.6, 82.6, 165.2, 165.2, "Ada architecture white paper"),
    _Peaks(r"GeForce RTX 5090", 104.8, 104.8, 209.5, 209.5, "RTX Blackwell white paper"),
    _Peaks(r"L4", 30.3, 60, 121, 121, "L4 data sheet"),
    _Peaks(r"L40", 90.5, 90.5, 181, 181, "L40 data sheet"),
    _Peaks(r"L40S", 91.6, 183, 362, 362, "L40S data sheet"),
    _Peaks(r"H100 80GB HBM3", 66.9, 494.7, 989.4, 989.4, "H100 architecture white paper"),
    _Peaks(r"H100 PCIe", 51.2, 378, 756, 756, "H100 architecture white paper"),
    _Peaks(r"H100 NVL", 60, 417.5, 835.5, 835.5, "H100 data sheet"),
    _Peaks(r"H200", 67, 494.5, 989.5, 989.5, "H200 data sheet"),
    _Peaks(r"H200 NVL", 60, 417.5, 835.5, 835.5, "H200 data sheet"),
    _Peaks(r"GH200 480GB", 67, 494, 990, 990, "GH200 data sheet"),
    _Peaks(r"B200", 75, 1100, 2250, 2250, "HGX B200 data sheet"),
)  # fmt: skip


def peak_flops(device: str, precision: Precision) -> float | None:
    """Return the peak of a device in operations a second, or None if it is unknown.

    Args:
        device: the device's name, as `torch.cuda.get_device_name` returns it.
        precision: the precision of the matrix products.
    """
    name = re.sub(r"^(NVIDIA|Tesla) ", "", device)
    found = [peaks for peaks in _DEVICES if re.fullmatch(peaks.name, name)]
    peak: float | None = getattr(found[0], precision) if found else None
    return None if peak is None else peak * 1e12


class DevicePeak(NamedTuple):
    """Peak rate of a rank's device in the run's precision.

    Attributes:
        flops_per_second: the peak, or None if it is unknown, as for every CPU.
        unknown: the notice for a GPU whose peak is unknown; otherwise None.
    """

    flops_per_second: float | None = None
    unknown: str | None = None


def peak_of_rank(engine: EngineConfig, placement: Placement) -> DevicePeak:
    """Return the peak of the device that a rank computes on."""
    if placement.device == "cpu":
        return DevicePeak()
    import torch  # imported late, because `peak_flops` needs no torch

    name = torch.cuda.get_device_name(placement.torch_device)
    precision = _precision(engine)
    peak = peak_flops(name, precision)
    if peak is not None:
        return DevicePeak(peak)
    return DevicePeak(
        unknown="MFU is not recorded, because the table in trainer/process/device_peaks.py does "
        f"not have the peak of {name} in {precision}. To compute MFU, divide the recorded TFLOP/s "
        "by the dense peak in the GPU's data sheet"
    )


def _precision(engine: EngineConfig) -> Precision:
    """Return the precision of matrix products on a GPU."""
    if engine.precision == "bf16":
        return "bf16"
    import torch

    return "fp32" if torch.get_float32_matmul_precision() == "highest" else "tf32"
