"""Jobs for a `RankPool` that train a network with frozen parts."""

from typing import Any

import torch

from run_store.checkpoints.fragment import EMA, MASTER
from support.ranks.engine_jobs import (
    Shape,
    full_weights,
    make_engine,
    make_model,
    record_norms,
    train_steps,
)
from support.ranks.shape_jobs import DECAY
from trainer.process.placement import Placement
from trainer.state.ema import Ema
from trainer.zero import fragments


def train(
    placement: Placement, shape: Shape, frozen: tuple[str, ...], steps: int, clipping: float
) -> dict[str, Any]:
    """Return losses, norms, the weights that the forward pass reads, and their average."""
    engine = make_engine(placement, shape, clipping, frozen=frozen)
    fragments.create_moments(engine, 0)
    ema = Ema(engine, DECAY)
    norms = record_norms(engine)
    losses = train_steps(engine, 1, steps)
    ema.update()
    with ema.inference_model() as model:
        average = {name: p.detach().float().clone() for name, p in model.named_parameters()}
    found = {
        "losses": losses,
        "norms": norms,
        "weights": full_weights(engine),
        "average": average,
        "told": engine.frozen.summary_text(engine.parameter_shapes),
        "groups": [len(group["params"]) for group in engine.optimizer.param_groups],
    }
    engine.destroy()
    return found


def load_other_weights(placement: Placement, shape: Shape, frozen: tuple[str, ...]) -> Any:
    """Load twice the initial weights; return those of the forward pass, and the rank's share."""
    initial = {n: p.detach().flatten() for n, p in make_model().named_parameters()}

    def read(kind: str, parameter: str, start: int, target: torch.Tensor) -> None:
        factor = 2 if kind in (MASTER, EMA) else 0
        target.copy_(factor * initial[parameter][start : start + target.numel()])

    engine = make_engine(placement, shape, frozen=frozen)
    fragments.load_state(engine, read, 0)
    # under ZeRO-3, a pass gathers the weights and partitions them again, from the loaded values
    train_steps(engine, 1, 1)
    weights = full_weights(engine)
    owned = [(f.parameter, f.start, f.tensor.clone()) for f in engine.frozen.fragments()]
    engine.destroy()
    return weights, owned
