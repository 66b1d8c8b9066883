"""Job for a `RankPool`: a network that starts with the encoder of another network's checkpoint."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline.batching.plan import Cursor
from model.config.encoder_only import EncoderOnlyConfig
from model.heads.masked_head import MaskedLanguageModel
from model.losses.loss import CrossEntropy
from model.networks.encoder_only import EncoderOnly
from model.networks.initialisation import initialise_normal
from support.ranks.engine_jobs import Shape, full_weights
from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.registries.optimizers import OptimizerConfig
from trainer.start.warm_start import WarmStart
from trainer.state.restore import begin
from trainer.tasks.randomness import seed_torch
from trainer.zero import fragments
from trainer.zero.engine import TrainingEngine

VOCABULARY, CONTEXT = 31, 10
CONFIG = EncoderOnlyConfig(preset="bert", layers=2, width=20, heads=2)
# frozen parameters: some that start from the checkpoint, and some that do not
BEGUN_WITH = ("encoder.layers.0.*", "classes.weight")


class Labelled(nn.Module):
    """An encoder with a separate head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = EncoderOnly(CONFIG, VOCABULARY, CONTEXT)
        self.classes = nn.Linear(CONFIG.width, 3)
        self.width = CONFIG.width
        initialise_normal(self)

    def forward(self, *_: Tensor) -> None:
        raise AssertionError("it is not trained")

    def checkpoint_activations(self, on: bool) -> None:
        self.encoder.checkpoint_activations(on)


def make_labelled() -> Labelled:
    seed_torch(1, "weights")
    return Labelled()


def make_masked(config: EncoderOnlyConfig = CONFIG) -> MaskedLanguageModel:
    seed_torch(2, "weights")
    return MaskedLanguageModel(config, VOCABULARY, CONTEXT)


def begin_with(
    placement: Placement, shape: Shape, checkpoint: Path, frozen: tuple[str, ...]
) -> dict[str, Any]:
    """Return the weights of the forward pass, the rank's share of the state, and the messages."""
    engine = TrainingEngine(
        make_labelled,
        engine=EngineConfig(**asdict(shape)),
        optimizer=OptimizerConfig(),
        gradient_clipping=0.0,
        loss=CrossEntropy(),
        micro_batches_per_step=5,
        placement=placement,
        frozen=frozen,
    )
    recipe = SimpleNamespace(
        model=SimpleNamespace(network="labelled"), trainer=SimpleNamespace(ema_decay=0.0)
    )
    start: Any = WarmStart(parent=None, path=checkpoint)  # type: ignore[arg-type]
    said: list[str] = []
    job = SimpleNamespace(warm_start=start, cursor=Cursor())
    begin(engine, SimpleNamespace(job=job, recipe=recipe, notify=said.append))  # type: ignore[arg-type]
    found = {
        "weights": full_weights(engine),
        "owned": [
            (f.kind, f.parameter, f.start, f.tensor.to(torch.float32, copy=True))
            for f in fragments.owned_fragments(engine)
        ],
        "said": said,
    }
    engine.destroy()
    return found
