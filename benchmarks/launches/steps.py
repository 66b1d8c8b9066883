"""Count one step of the engine, or of a plain loop, for each row of the ledger.

The networks have the depth of base and a small width, because the depth alone determines the
launches. A step has two micro-batches, which the task itself collates.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.launches.counter import LaunchCounter, Place
from benchmarks.launches.gpu_branches import branches_of_a_gpu
from benchmarks.support.engine_step import summed
from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.dataset.manifest_header import SpecialIds
from data_pipeline.tasks.causal_lm import RowsShape
from data_pipeline.tasks.translation import PairShape
from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import ModelConfig
from model.heads.masked_head import MaskedLanguageModel
from model.losses.loss import CrossEntropy
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer
from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.registries.optimizers import OptimizerConfig
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.causal_lm import CausalLanguageModel
from trainer.tasks.masked_lm import MaskedLanguageModelling
from trainer.tasks.task import TrainingTask
from trainer.tasks.translation import TranslationTask, vocabulary_of
from trainer.zero.disable_compiler import AdamW
from trainer.zero.engine import TrainingEngine

PLACEMENT = Placement()
SLOTS, ROWS_OF_BATCH, LENGTH, PIECES = 2, 50, 8, 4000
TARGETS = ROWS_OF_BATCH * LENGTH
LOSS = CrossEntropy(0.1)
SIZES: Any = {"width": 16, "feed_forward_width": 64, "heads": 2}
SPECIAL = SpecialIds(pad=0, unk=1, bos=2, eos=3)
TOKENIZER = SimpleNamespace(vocabulary_size=PIECES, pad_id=0, bos_id=2, eos_id=3)
TOKENIZERS: Any = dict.fromkeys(("src", "tgt", "text"), TOKENIZER)


Step = Callable[[LaunchCounter, DeviceBatch], None]


class Form(NamedTuple):
    """Kind of network with its task.

    Attributes:
        task: the name of the task.
        training: the class of the task.
        build: creates the network.
        real_weights: the number of weights of a real network.
        real_targets: the number of targets of its micro-batches on a GPU.
        real_vocabulary: the number of entries of its vocabulary.
    """

    task: str
    training: type[TrainingTask]
    build: Callable[[], nn.Module]
    real_weights: float
    real_targets: int
    real_vocabulary: int

    def batch(self, device: torch.device, rows: int = ROWS_OF_BATCH) -> DeviceBatch:
        """Return a synthetic micro-batch, as the task collates it."""
        shape = RowsShape(rows, LENGTH)
        if self.task == "translation":
            shape = PairShape(rows, LENGTH, LENGTH)
        recipe: Any = SimpleNamespace(task=self.task, model=None)
        task = self.training(recipe, SimpleNamespace(), TOKENIZERS)  # type: ignore[arg-type]
        return task.collate(DATA_TASKS[self.task].synthetic(shape, SPECIAL), device)


def _decoder_only() -> nn.Module:
    config = DecoderOnlyConfig.model_validate({"preset": "gpt2", **SIZES})
    return DecoderOnly(config, PIECES, SPECIAL.pad, LENGTH)


def _masked() -> nn.Module:
    config = EncoderOnlyConfig.model_validate({"preset": "bert", **SIZES})
    return MaskedLanguageModel(config, PIECES, LENGTH)


# Weights of base, GPT-2 and BERT base; 400 rows of 32 tokens, 8 of 1,024, and 15 % of 12,800.
FORMS = {
    "translation": Form(
        "translation",
        TranslationTask,
        lambda: Transformer(ModelConfig(**SIZES), vocabulary_of(TOKENIZERS)),
        *(63e6, 12_800, 37_000),
    ),
    "GPT": Form("causal_lm", CausalLanguageModel, _decoder_only, 124e6, 8_192, 50_304),
    "masked": Form("masked_lm", MaskedLanguageModelling, _masked, 110e6, 1_920, 30_522),
}


class Row(NamedTuple):
    """Row of the ledger: the form of a network, and how it is trained.

    Attributes:
        loop: "fast", "exact" or "verified" for the engine, or "plain" for a loop without it.
    """

    form: str
    precision: Any
    stage: Any
    loop: str

    def __str__(self) -> str:
        stage = "" if self.loop == "plain" else f"stage {self.stage} "
        return f"{self.form} {self.precision} {stage}{self.loop}"


_ENGINES = (
    *(("translation", "fp32", 0), ("translation", "bf16", 1), ("translation", "bf16", 2)),
    *(("translation", "bf16", 3), ("GPT", "bf16", 1), ("masked", "bf16", 1)),
)
ROWS = [Row(*engine, loop) for engine in _ENGINES for loop in ("plain", "fast", "exact")]
ROWS = [row for row in ROWS if row.stage < 2 or row.loop != "plain"]
ROWS.append(Row("translation", "bf16", 1, "verified"))


def count(row: Row) -> LaunchCounter:
    """Return the counts of a row's second step; the process group must exist.

    The first step creates the optimizer's moments and the grids of exact numerics; a few rows are
    enough for it.
    """
    torch.manual_seed(1)
    form = FORMS[row.form]
    weights = sum(parameter.numel() for parameter in form.build().parameters())
    with branches_of_a_gpu(
        weights=weights / form.real_weights,
        targets=TARGETS / form.real_targets,
        vocabulary=form.real_vocabulary,
    ):
        with _plain(row, form) if row.loop == "plain" else _engine(row, form) as step:
            step(LaunchCounter(), form.batch(PLACEMENT.torch_device, rows=ROWS_OF_BATCH // 10))
            step(counter := LaunchCounter(), form.batch(PLACEMENT.torch_device))
        return counter


def read_on_meta(form: Form, network: nn.Module) -> Place | None:
    """Return the first place in a pass that reads a value, or None.

    Tensors on `device="meta"` have no values, so any read raises an error.
    """
    batch = form.batch(torch.device("meta"))
    try:
        network = network.to("meta", torch.bfloat16)
        network(*batch.inputs, LOSS, batch.packings).smoothed.backward()
    except (RuntimeError, NotImplementedError) as error:
        frames = list(traceback.walk_tb(error.__traceback__))
        return Place.of(reversed(frames), f"{error}"[:80])
    return None


@contextlib.contextmanager
def _engine(row: Row, form: Form) -> Iterator[Step]:
    engine = TrainingEngine(
        form.build,
        engine=EngineConfig(
            precision=row.precision,
            zero_stage=row.stage,
            numerics="fast" if row.loop == "fast" else "exact",
            verify_reductions=row.loop == "verified",
        ),
        optimizer=OptimizerConfig(),
        gradient_clipping=1.0,
        loss=LOSS,
        micro_batches_per_step=SLOTS,
        placement=PLACEMENT,
    )

    def step(counter: LaunchCounter, batch: DeviceBatch) -> None:
        with counter.part("passes"):
            report = summed(engine, batch, LENGTH * len(batch.inputs[0]), SLOTS)
        with counter.part("checks"):
            assert not report.bad_slots
            assert not engine.wrong_reductions()
        with counter.part("update"):
            engine.step(1e-4, report.amax)

    try:
        yield step
    finally:
        engine.destroy()  # also restores torch's linear function


@contextlib.contextmanager
def _plain(row: Row, form: Form) -> Iterator[Step]:
    network = form.build().to(torch.bfloat16 if row.precision == "bf16" else torch.float32)
    optimizer = AdamW(network.parameters(), lr=1e-4, fused=True)

    def step(counter: LaunchCounter, batch: DeviceBatch) -> None:
        with counter.part("passes"):
            for _ in range(SLOTS):
                sums = network(*batch.inputs, LOSS, batch.packings)
                (sums.smoothed / (SLOTS * TARGETS)).backward()
        with counter.part("update"):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    yield step
