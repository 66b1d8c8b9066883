"""Rates of a step's floating-point operations, for its line in the record."""

from typing import TypedDict

from trainer.training.step_exchange import StepReport


class Throughput(TypedDict, total=False):
    """Fields of `trainer.record.records.TrainLine`; none if nothing is counted."""

    model_flops: int
    hardware_flops: int
    tflops_per_second: float
    tflops_per_second_per_rank: float
    mfu: float | None


def throughput(report: StepReport, seconds: float, ranks: int) -> Throughput:
    """Return the operations of a step that took so many seconds, and their rates."""
    if report.flops is None:
        return {}
    rate, peak = report.flops.model / seconds, report.peak_flops_per_second
    return {
        "model_flops": report.flops.model,
        "hardware_flops": report.flops.hardware,
        "tflops_per_second": rate / 1e12,
        "tflops_per_second_per_rank": rate / 1e12 / ranks,
        "mfu": None if peak is None else rate / peak,
    }
