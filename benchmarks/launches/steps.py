"""Count one step of the engine, or of a plain loop, for each row of the ledger.

The networks have the depth of base, and a small width: launches depend on the depth alone. A step
has two micro-batches, which the task itself collates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from benchmarks.launches.counter import PARTS, LaunchCounter
from benchmarks.launches.gpu_branches import branches_of_a_gpu
from data_pipeline.batching.task import DATA_TASKS, MicroBatchShape
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest_records import SpecialIds
from data_pipeline.tasks.causal_lm import RowsShape
from data_pipeline.tasks.translation import PairShape
from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import ModelConfig
from model.heads.masked_head import MaskedLanguageModel
from model.losses.loss import CrossEntropy
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary
from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.registries.optimizers import OptimizerConfig
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.causal_lm import CausalLanguageModel
from trainer.tasks.masked_lm import MaskedLanguageModelling
from trainer.tasks.randomness import seed_torch
from trainer.tasks.task import TrainingTask
from trainer.tasks.translation import TranslationTask
from trainer.training.step_exchange import StepReport, exchange
from trainer.zero.disable_compiler import AdamW
from trainer.zero.engine import TrainingEngine

PLACEMENT = Placement()
SLOTS = 2
LENGTH = 8
PIECES = 4000
SPECIAL = SpecialIds(pad=0, unk=1, bos=2, eos=3)
LOSS = CrossEntropy(0.1)
SIZES: dict[str, Any] = {"width": 16, "feed_forward_width": 64, "heads": 2}

Counts = dict[str, dict[str, int]]  # "launches" and "waits", by part


@dataclass(frozen=True)
class Form:
    """Kind of network with its task.

    Attributes:
        build: creates the network.
        task: the class of the task.
        name: the name of the task.
        shape: the size of a micro-batch.
        real_elements: the number of weights of a real network.
        real_targets: the number of targets of its micro-batches on a GPU.
    """

    build: Callable[[], nn.Module]
    task: type[TrainingTask]
    name: str
    shape: MicroBatchShape
    real_elements: float
    real_targets: int

    def batch(self, device: torch.device) -> DeviceBatch:
        """Return a synthetic micro-batch on a device, as the task collates it."""
        tokenizer: Any = SimpleNamespace(
            vocabulary_size=PIECES, pad_id=SPECIAL.pad, bos_id=SPECIAL.bos, eos_id=SPECIAL.eos
        )
        recipe: Any = SimpleNamespace(task=self.name, model=None)
        manifest: Any = None
        task = self.task(recipe, manifest, dict.fromkeys((SOURCE, TARGET, TEXT), tokenizer))
        return task.collate(DATA_TASKS[self.name].synthetic(self.shape, SPECIAL), device)

    @property
    def targets(self) -> int:
        return self.shape.rows * LENGTH


def _translation() -> nn.Module:
    return Transformer(ModelConfig(**SIZES), Vocabulary(PIECES, PIECES, 0, 2, 3))


def _decoder_only() -> nn.Module:
    config = DecoderOnlyConfig.model_validate({"preset": "gpt2", **SIZES})
    return DecoderOnly(config, PIECES, SPECIAL.pad, 2 * LENGTH)


def _masked() -> nn.Module:
    config = EncoderOnlyConfig.model_validate({"preset": "bert", **SIZES})
    return MaskedLanguageModel(config, PIECES, 2 * LENGTH)


# Weights of base, GPT-2 and BERT base; 400 rows of 32 tokens, 8 rows of 1,024, and 15 % of 12,800.
FORMS = {
    "translation": Form(
        _translation, TranslationTask, "translation", PairShape(50, LENGTH, LENGTH), 63e6, 12_800
    ),
    "GPT": Form(
        _decoder_only, CausalLanguageModel, "causal_lm", RowsShape(50, LENGTH), 124e6, 8_192
    ),
    "masked": Form(
        _masked, MaskedLanguageModelling, "masked_lm", RowsShape(50, LENGTH), 110e6, 1_920
    ),
}


@dataclass(frozen=True)
class Row:
    """Row of the ledger: a form of network with the settings of its engine."""

    form: str
    precision: Any
    stage: Any
    numerics: Any
    is_verified: bool = False

    def __str__(self) -> str:
        verified = " verified" if self.is_verified else ""
        return f"{self.form} {self.precision} stage {self.stage} {self.numerics}{verified}"

    @property
    def plain(self) -> str:
        """Name of the plain loop with the same network."""
        return f"{self.form} {self.precision} plain"


_SETTINGS = (
    *(("translation", "fp32", 0), ("translation", "bf16", 1), ("translation", "bf16", 2)),
    *(("translation", "bf16", 3), ("GPT", "bf16", 1), ("masked", "bf16", 1)),
)
ROWS = (
    *(Row(*settings, numerics) for settings in _SETTINGS for numerics in ("fast", "exact")),
    Row("translation", "bf16", 1, "exact", is_verified=True),
)


def count_row(row: Row) -> Counts:
    """Return the counts of a step of the engine; the process group must exist."""
    form = FORMS[row.form]
    with _branches(form):
        engine = TrainingEngine(
            form.build,
            engine=EngineConfig(
                precision=row.precision,
                zero_stage=row.stage,
                numerics=row.numerics,
                verify_reductions=row.is_verified,
            ),
            optimizer=OptimizerConfig(),
            gradient_clipping=1.0,
            loss=LOSS,
            micro_batches_per_step=SLOTS,
            placement=PLACEMENT,
        )
        try:
            return _count_last(partial(_engine_step, engine, form))
        finally:
            engine.destroy()


def count_plain(form_name: str, precision: str) -> Counts:
    """Return the counts of a step of a plain loop with the same network and loss."""
    form = FORMS[form_name]
    with _branches(form):
        seed_torch(1, "weights")
        network = form.build().to(torch.bfloat16 if precision == "bf16" else torch.float32)
        optimizer = AdamW(network.parameters(), lr=1e-4, fused=True)
        return _count_last(partial(_plain_step, network, optimizer, form))


def _branches(form: Form) -> Any:
    elements = sum(parameter.numel() for parameter in form.build().parameters())
    return branches_of_a_gpu(
        elements=elements / form.real_elements, targets=form.targets / form.real_targets
    )


def _count_last(step: Callable[[LaunchCounter], None]) -> Counts:
    """Return the counts of the second step; the first one creates moments and grids."""
    step(LaunchCounter())
    counter = LaunchCounter()
    step(counter)
    return {
        "launches": counter.totals(counter.launches),
        "waits": counter.totals(counter.waits),
    }


def _engine_step(engine: TrainingEngine, form: Form, counter: LaunchCounter) -> None:
    batch = form.batch(PLACEMENT.torch_device)
    while True:
        results = []
        for slot in range(SLOTS):
            with counter.part("passes"):
                result = engine.forward_backward(
                    batch,
                    units_global=SLOTS * form.targets,
                    is_accumulation_boundary=slot == SLOTS - 1,
                    is_dummy=False,
                )
            results.append(result)
        with counter.part("exchange"):
            report = _exchange(batch, results)
            if engine.refit(report.amax) is None:
                break
    assert not report.bad_slots
    with counter.part("checks"):
        assert not engine.wrong_reductions()
    with counter.part("update"):
        engine.step(1e-4, report.amax)


def _exchange(batch: DeviceBatch, results: list[Any]) -> StepReport:
    return exchange(
        range(SLOTS),
        [batch] * SLOTS,
        results,
        micro_batches_per_step=SLOTS,
        data_stall_seconds=0.0,
        stop_requested=False,
        placement=PLACEMENT,
    )


def _plain_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, form: Form, counter: LaunchCounter
) -> None:
    inputs = form.batch(PLACEMENT.torch_device).inputs
    for _ in range(SLOTS):
        with counter.part("passes"):
            loss = network(*inputs, LOSS).smoothed / (SLOTS * form.targets)
            loss.backward()
    with counter.part("update"):
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def total(counts: Counts, kind: str = "launches") -> int:
    """Return the sum over the parts of the launches or the waits of a step."""
    return sum(counts[kind][part] for part in PARTS)
