"""Peak performance by the names that drivers give to GPUs."""

import pytest

from trainer.config import EngineConfig
from trainer.process.device_peaks import peak_flops, peak_of_rank
from trainer.process.placement import Placement


@pytest.mark.parametrize(
    ("device", "precision", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 80GB HBM3", "fp32", 66.9),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "bf16", 989.5),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156),
        ("NVIDIA A100 80GB PCIe", "bf16", 312),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
    ],
)
def test_peaks_are_those_of_dense_products(device, precision, teraflops):
    assert peak_flops(device, precision) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "device",
    [
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",  # a slice has a part of the peak
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A10G",
        "NVIDIA A100X",
        "NVIDIA L400",
        "AMD Instinct MI300X",
    ],
)
def test_device_names_that_only_resemble_known_names_have_no_peak(device):
    assert peak_flops(device, "bf16") is None


def test_a_device_that_lacks_products_in_a_precision_has_no_peak_in_it():
    assert peak_flops("Tesla V100-SXM2-16GB", "bf16") is None


def test_no_device_has_two_entries():
    from trainer.process.device_peaks import _DEVICES

    assert len({peaks.name for peaks in _DEVICES}) == len(_DEVICES)
    assert all(peaks.source for peaks in _DEVICES)


def test_a_cpu_has_no_peak_and_no_message():
    assert peak_of_rank(EngineConfig(), Placement()) == (None, None)


def test_an_unknown_gpu_is_named_in_the_message(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Z900")
    peak = peak_of_rank(EngineConfig(precision="bf16"), Placement(device="cuda"))
    assert peak.flops_per_second is None
    assert "NVIDIA Z900" in peak.unknown
    assert "bf16" in peak.unknown


def test_the_peak_of_fp32_products_depends_on_torchs_matmul_precision(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    engine, placement = EngineConfig(), Placement(device="cuda")
    assert peak_of_rank(engine, placement).flops_per_second == 67e12
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert peak_of_rank(engine, placement).flops_per_second == 494.5e12
    finally:
        torch.set_float32_matmul_precision(before)
