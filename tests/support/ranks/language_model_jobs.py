"""Jobs for a `RankPool` that train small one-stack models, with the engine but without the loop."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from model.blocks.packing import part_positions
from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig, LabelTokensConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.losses.loss import CrossEntropy
from model.networks.decoder_only import DecoderOnly
from support.ranks.engine_jobs import (
    LEARNING_RATE,
    SLOTS,
    Shape,
    digest,
    full_weights,
    run_passes,
)
from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.registries.optimizers import OptimizerConfig
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.randomness import seed_torch
from trainer.zero.engine import TrainingEngine

VOCABULARY = 37
LABELS = 5
CONTEXT = 12
SIZES = {"layers": 2, "width": 24, "heads": 4, "dropout": 0.1}


def rows(step: int, slot: int) -> DeviceBatch:
    """Return four rows of up to three parts, one with padding, determined by the coordinate."""
    generator = torch.Generator().manual_seed(100 * step + slot)
    input_bt, target_bt = torch.randint(2, VOCABULARY, (2, 4, CONTEXT), generator=generator)
    part_bt = torch.randint(0, 3, (4, CONTEXT), generator=generator).sort(dim=1).values
    part_bt -= part_bt[:, :1]
    part_bt[1, 9:] = -1
    for row in part_bt:  # number the parts without gaps
        _, numbers = row[row >= 0].unique(return_inverse=True)
        row[row >= 0] = numbers
    padding = int((part_bt < 0).sum())
    return DeviceBatch((input_bt, target_bt, part_bt), bytes(32), padding, part_bt.numel())


def masked_rows(step: int, slot: int) -> DeviceBatch:
    """Return rows like `rows`, with some tokens to predict; one slot of a step has none."""
    input_bt, target_bt, part_bt = rows(step, slot).inputs
    hidden = (part_bt >= 0) & (target_bt % 3 == 0) & (slot != step % SLOTS)
    place_m = hidden.flatten().nonzero().squeeze(1)
    segment_bt = input_bt % 2
    fed = (input_bt, segment_bt, part_positions(part_bt), part_bt, place_m)
    padding = int((part_bt < 0).sum())
    return DeviceBatch((*fed, target_bt.flatten()[place_m]), bytes(32), padding, part_bt.numel())


def sentence_rows(step: int, slot: int) -> DeviceBatch:
    """Return three pairs from the first parts of `rows`; other parts are hidden as padding."""
    (input_bt, target_bt, part_bt), (_, _, other_bt) = rows(step, slot).inputs, rows(9, slot).inputs
    ids_bt = torch.cat([input_bt[:3], target_bt[:3]])
    part_bt = torch.cat([part_bt[:3], other_bt[:3]])
    part_bt[part_bt > 0] = -1
    fed = (ids_bt, torch.zeros_like(ids_bt), part_positions(part_bt), part_bt)
    return DeviceBatch(fed, bytes(32), int((part_bt < 0).sum()), part_bt.numel())


def train(placement: Placement, shape: Shape, form: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return a run's losses, and digests of its weights and of each pass's gradients."""
    config = DecoderOnlyConfig.model_validate({**SIZES, **form})

    build = partial(DecoderOnly, config, VOCABULARY, pad_id=0, context_length=CONTEXT)
    return _train(placement, shape, build, rows, steps)


def train_masked(
    placement: Placement, shape: Shape, form: dict[str, Any], steps: int
) -> dict[str, Any]:
    """Train a network that predicts masked tokens; return the same as `train`."""
    config = EncoderOnlyConfig.model_validate({**SIZES, **form})

    build = partial(MaskedLanguageModel, config, VOCABULARY, CONTEXT)
    return _train(placement, shape, build, masked_rows, steps)


def train_sentences(
    placement: Placement, shape: Shape, form: dict[str, Any], steps: int
) -> dict[str, Any]:
    """Train a network that matches pairs of sentences; return the same as `train`."""
    config = SentenceEncoderConfig.model_validate({**SIZES, **form})

    build = partial(SentenceEncoder, config, VOCABULARY, CONTEXT)
    return _train(placement, shape, build, sentence_rows, steps)


def labelled_rows(step: int, slot: int) -> DeviceBatch:
    """Return rows like `rows`, with labels of some tokens; one slot of a step has no labels."""
    batch = masked_rows(step, slot)
    return replace(batch, inputs=(*batch.inputs[:-1], batch.inputs[-1] % LABELS))


def train_labels(
    placement: Placement, shape: Shape, kind: str, form: dict[str, Any], steps: int
) -> dict[str, Any]:
    """Train a network that predicts labels of texts or of tokens; return the same as `train`."""
    config = {"texts": LabelTextsConfig, "tokens": LabelTokensConfig}[kind](**SIZES, **form)

    build = partial(LabelModel, config, VOCABULARY, CONTEXT, LABELS)
    return _train(placement, shape, build, labelled_rows, steps)


def _train(
    placement: Placement,
    shape: Shape,
    build: Callable[[], nn.Module],
    rows_of: Callable[[int, int], DeviceBatch],
    steps: int,
) -> dict[str, Any]:
    gradients: dict[str, list[str]] = {}

    def seeded() -> nn.Module:
        seed_torch(1, "weights")
        return build()

    model = seeded()
    for name, parameter in model.named_parameters():
        parameter.register_hook(
            lambda gradient, name=name: gradients.setdefault(name, []).append(digest(gradient))
        )
    given = [model]
    engine = TrainingEngine(
        lambda: given.pop() if given else seeded(),
        engine=EngineConfig(**asdict(shape)),
        optimizer=OptimizerConfig(weight_decay=0.01),
        gradient_clipping=0.0,
        loss=CrossEntropy(),
        micro_batches_per_step=SLOTS,
        placement=placement,
    )
    losses = [_step(engine, rows_of, step) for step in range(1, steps + 1)]
    weights = {name: digest(weight) for name, weight in full_weights(engine).items()}
    engine.destroy()
    return {"losses": losses, "weights": weights, "gradients": gradients}


def _step(engine: TrainingEngine, rows_of: Callable[[int, int], DeviceBatch], step: int) -> float:
    batches = [rows_of(step, slot) for slot in range(SLOTS)]
    units = sum(batch.positions - batch.padding for batch in batches)
    while True:
        report = run_passes(engine, step, lambda slot: batches[slot or 0], units)
        if engine.refit(report.amax) is None:
            engine.step(LEARNING_RATE, report.amax)
            return report.sums[0] / units
