"""Train synthetic micro-batches with the engine, or in a plain loop of torch beside it.

The ledger counts the launches of such steps on a CPU, for networks with the depth of base and a
small width, because the depth alone determines the launches. The GPU check measures the time of
such steps, for the sizes of the papers. A step has two micro-batches, which the task itself
collates.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.launches.counter import LaunchCounter, Place
from benchmarks.launches.gpu_branches import branches_of_a_gpu
from benchmarks.support.engine_step import summed
from data_pipeline.batching.batch import MicroBatch
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
from trainer.zero.compiled_layers import LENGTH, compile_network
from trainer.zero.disable_compiler import AdamW
from trainer.zero.engine import TrainingEngine

PLACEMENT = Placement()
SLOTS = 2
LOSS = CrossEntropy(0.1)
SPECIAL = SpecialIds(pad=0, unk=1, bos=2, eos=3)
TASKS: dict[type, tuple[str, type[TrainingTask]]] = {
    ModelConfig: ("translation", TranslationTask),
    DecoderOnlyConfig: ("causal_lm", CausalLanguageModel),
    EncoderOnlyConfig: ("masked_lm", MaskedLanguageModelling),
}

# Function that returns a context whose operations belong to a part of the step, such as "passes".
Part = Callable[[str], AbstractContextManager[None]]
Step = Callable[[Part, DeviceBatch], None]


class Form(NamedTuple):
    """Network and the size of its micro-batches.

    Attributes:
        vocabulary: the number of entries of each vocabulary.
        rows: the number of rows of a micro-batch.
        length: the number of tokens of a row.
    """

    config: ModelConfig | DecoderOnlyConfig | EncoderOnlyConfig
    vocabulary: int
    rows: int
    length: int

    @property
    def targets(self) -> int:
        """Number of target tokens of a micro-batch."""
        return self.rows * self.length

    @property
    def task(self) -> TrainingTask:
        name, training = TASKS[type(self.config)]
        engine = SimpleNamespace(attention=None)
        recipe: Any = SimpleNamespace(task=name, model=self.config, engine=engine)
        manifest: Any = SimpleNamespace()
        return training(recipe, manifest, self._tokenizers)

    @property
    def _tokenizers(self) -> Any:
        tokenizer = SimpleNamespace(
            vocabulary_size=self.vocabulary, pad_id=SPECIAL.pad, bos_id=2, eos_id=3
        )
        return dict.fromkeys(("src", "tgt", "text"), tokenizer)

    def build(self) -> nn.Module:
        if isinstance(self.config, ModelConfig):
            return Transformer(self.config, vocabulary_of(self._tokenizers))
        if isinstance(self.config, DecoderOnlyConfig):
            return DecoderOnly(self.config, self.vocabulary, SPECIAL.pad, self.length)
        return MaskedLanguageModel(self.config, self.vocabulary, self.length)

    def micro_batch(self) -> MicroBatch:
        """Return a synthetic micro-batch; a row of a language model has two documents."""
        data = DATA_TASKS[TASKS[type(self.config)][0]]
        if isinstance(self.config, ModelConfig):
            return data.synthetic(PairShape(self.rows, self.length, self.length), SPECIAL)
        return data.synthetic(RowsShape(self.rows, self.length), SPECIAL)

    def batch(self, device: torch.device) -> DeviceBatch:
        """Return a synthetic micro-batch, as the task collates it."""
        return self.task.collate(self.micro_batch(), device)


_SMALL: Any = {"width": 16, "feed_forward_width": 64, "heads": 2}
FORMS = {
    "translation": Form(ModelConfig(**_SMALL), 4000, 50, 8),
    "GPT": Form(DecoderOnlyConfig.model_validate({"preset": "gpt2", **_SMALL}), 4000, 50, 8),
    "masked": Form(EncoderOnlyConfig.model_validate({"preset": "bert", **_SMALL}), 4000, 50, 8),
}
# Sizes of base, GPT-2 and BERT base: weights; targets of a micro-batch on a GPU, in 400 rows of 32
# tokens and 8 of 1,024, and 15 % of 12,800; entries of the vocabulary.
REAL = {
    "translation": (63e6, 12_800, 37_000),
    "GPT": (124e6, 8_192, 50_304),
    "masked": (110e6, 1_920, 30_522),
}


class Row(NamedTuple):
    """Row of the ledger: the form of a network, and how it is trained.

    Attributes:
        loop: "fast", "exact", "verified" or "compiled" (fast, with compiled layers) for the engine,
            or "plain" for a loop without it.
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
    real_weights, real_targets, real_vocabulary = REAL[row.form]
    with branches_of_a_gpu(
        weights=weights / real_weights,
        targets=form.targets / real_targets,
        vocabulary=real_vocabulary,
    ):
        with steps_of(row, form, PLACEMENT) as step:
            few = form._replace(rows=form.rows // 10)
            step(LaunchCounter().part, few.batch(PLACEMENT.torch_device))
            step((counter := LaunchCounter()).part, form.batch(PLACEMENT.torch_device))
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
def steps_of(row: Row, form: Form, placement: Placement) -> Iterator[Step]:
    """Yield a function that trains one step as specified by the row."""
    if row.loop == "plain":
        yield _plain_step(row, form, placement)
        return
    settings = EngineConfig(
        precision=row.precision,
        zero_stage=row.stage,
        numerics="fast" if row.loop in ("fast", "compiled") else "exact",
        verify_reductions=row.loop == "verified",
        compile="layers" if row.loop == "compiled" else "none",
    )
    compiled = None
    if row.loop == "compiled":
        rows = max(2, form.rows * form.length // LENGTH)
        compiled = compile_network(form.build(), settings, rows, placement)
    engine = TrainingEngine(
        form.build,
        engine=settings,
        optimizer=OptimizerConfig(),
        gradient_clipping=1.0,
        loss=LOSS,
        micro_batches_per_step=SLOTS,
        placement=placement,
        compiled=compiled,
    )

    def step(part: Part, batch: DeviceBatch) -> None:
        with part("passes"):
            report = summed(engine, batch, form.length * len(batch.inputs[0]), SLOTS)
        with part("checks"):
            assert not report.bad_slots
            assert not engine.wrong_reductions()
        with part("update"):
            engine.step(1e-4, report.amax)

    try:
        yield step
    finally:
        engine.destroy()  # also restores torch's linear function


def _plain_step(row: Row, form: Form, placement: Placement) -> Step:
    dtype = torch.bfloat16 if row.precision == "bf16" else torch.float32
    network = form.build().to(placement.torch_device, dtype)
    optimizer = AdamW(network.parameters(), lr=1e-4, fused=True)

    def step(part: Part, batch: DeviceBatch) -> None:
        with part("passes"):
            for _ in range(SLOTS):
                sums = network(*batch.inputs, LOSS, batch.packings)
                (sums.smoothed / (SLOTS * form.targets)).backward()
        with part("update"):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return step
