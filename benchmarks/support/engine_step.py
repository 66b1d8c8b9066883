"""Passes and exchange of one step of the engine, for benchmarks that repeat a micro-batch."""

from trainer.tasks.batch import DeviceBatch
from trainer.training.step_exchange import StepReport, exchange
from trainer.zero.engine import TrainingEngine


def summed(engine: TrainingEngine, batch: DeviceBatch, units: int, slots: int) -> StepReport:
    """Run the passes of a step, and the exchange between the ranks.

    Args:
        units: loss units of the micro-batch.
        slots: micro-batches of the step, all equal to `batch`.
    """
    results = [
        engine.forward_backward(
            batch,
            units_global=slots * units,
            is_accumulation_boundary=slot == slots - 1,
            is_dummy=False,
        )
        for slot in range(slots)
    ]
    return exchange(
        range(slots),
        [batch] * slots,
        results,
        micro_batches_per_step=slots,
        data_stall_seconds=0.0,
        stop_requested=False,
        placement=engine.placement,
    )
