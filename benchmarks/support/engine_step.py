"""Engines on synthetic sentences, and one step, for benchmarks that repeat a micro-batch."""

import time
from collections.abc import Iterator

from data_pipeline.batching.batch import MicroBatch
from model.config.transformer import ModelConfig
from model.losses.loss import CrossEntropy
from model.networks.transformer import Transformer, Vocabulary
from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.registries.optimizers import OptimizerConfig
from trainer.tasks.batch import DeviceBatch, to_device
from trainer.training.step_exchange import StepReport, exchange
from trainer.zero.engine import PassResult, TrainingEngine


def transformer_engine(
    config: ModelConfig,
    vocabulary: Vocabulary,
    settings: EngineConfig,
    slots: int,
    placement: Placement,
    *,
    gradient_clipping: float = 1.0,
    kind: type[TrainingEngine] = TrainingEngine,
) -> TrainingEngine:
    """Build an engine of a Transformer, with default optimizer and label smoothing."""
    return kind(
        lambda: Transformer(config, vocabulary, settings.attention),
        engine=settings,
        optimizer=OptimizerConfig(),
        gradient_clipping=gradient_clipping,
        loss=CrossEntropy(0.1),
        micro_batches_per_step=slots,
        placement=placement,
    )


def summed(engine: TrainingEngine, batch: DeviceBatch, units: int, slots: int) -> StepReport:
    """Run the passes of a step and the exchange between the ranks, until the gradients fit.

    Args:
        units: loss units of the micro-batch.
        slots: micro-batches of the step, all equal to `batch`.
    """
    while True:
        report = exchange(
            range(slots),
            [batch] * slots,
            list(_passes(engine, batch, slots * units, slots)),
            micro_batches_per_step=slots,
            data_stall_seconds=0.0,
            stop_requested=False,
            placement=engine.placement,
        )
        if engine.refit(report.amax) is None:
            return report


def cpu_seconds_of_step(
    engine: TrainingEngine, batch: MicroBatch, vocabulary: Vocabulary, slots: int
) -> float:
    """Take a step without an exchange; return its CPU time."""
    started = time.process_time()
    on_device = to_device(batch, vocabulary, engine.placement.torch_device)
    for result in _passes(engine, on_device, slots * batch.tokens("tgt"), slots):
        assert bool(result.finite)
    engine.step(1e-4)
    return time.process_time() - started


def _passes(
    engine: TrainingEngine, batch: DeviceBatch, units_global: int, slots: int
) -> Iterator[PassResult]:
    for slot in range(slots):
        yield engine.forward_backward(
            batch,
            units_global=units_global,
            is_accumulation_boundary=slot == slots - 1,
            is_dummy=False,
        )
