"""Jobs for a `RankPool` that continue a run's state with a different shape."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch

from model.losses.r_drop import RDrop
from run_store.checkpoints.fragment import Fragment
from support.ranks.engine_jobs import (
    MODEL,
    SMOOTHING,
    Shape,
    make_engine,
    make_model,
    train_steps,
)
from trainer.process.placement import Placement
from trainer.state.ema import Ema
from trainer.zero import engine as engine_module
from trainer.zero import fragments
from trainer.zero.engine import TrainingEngine

DECAY = 0.9
FORMS: dict[str, dict[str, Any]] = {
    "paper": {},
    "marian": {"activation": "silu", "output_bias": True},
    "newer": {
        **{"norm": "pre", "norm_kind": "rms", "activation": "swiglu"},
        **{"positions": "rotary", "key_value_heads": 1},
    },
}
# State of a rank: kind, parameter, start, elements.
Pieces = list[tuple[str, str, int, torch.Tensor]]
# State of all ranks, by kind and parameter.
State = dict[tuple[str, str], torch.Tensor]


@dataclass(frozen=True)
class Network:
    """Properties of a network that are the same for all shapes.

    The form "marian" has SiLU and an output bias; "newer" has features that are newer than the
    paper.
    """

    groups: Literal["matrices and vectors", "one"] = "matrices and vectors"
    share_embeddings: Literal["all", "decoder", "none"] = "all"
    frozen: tuple[str, ...] = ()
    form: Literal["paper", "marian", "newer"] = "paper"
    r_drop: float = 0.0


def train(placement: Placement, shape: Shape, network: Network, steps: int) -> Any:
    """Return the losses of a run, and this rank's share of its state."""
    with engine_of(placement, shape, network) as engine:
        fragments.create_moments(engine, 0)
        ema = Ema(engine, DECAY)
        losses = _train(engine, ema, 1, steps)
        return losses, _owned(engine, ema)


def train_looking_at_the_average(
    placement: Placement, shape: Shape, network: Network, steps: int
) -> Any:
    """Compute with the average after each step of a run; return its losses, and this average.

    The ranks compute with the average different numbers of times.
    """
    losses = []
    with engine_of(placement, shape, network) as engine:
        fragments.create_moments(engine, 0)
        ema = Ema(engine, DECAY)
        for step in range(1, steps + 1):
            losses += _train(engine, ema, step, step)
            with ema.inference_model() as model, torch.inference_mode():
                for _ in range(1 + placement.rank):
                    assert model.encode(torch.tensor([[4, 5, 3]])).isfinite().all()
                seen = {name: p.detach().clone() for name, p in model.named_parameters()}
                assert not model.training
        return losses, seen


def go_on(
    placement: Placement, shape: Shape, network: Network, state: State, first: int, last: int
) -> Any:
    """Load the state after `first - 1` steps, and train until `last`.

    Returns:
        This rank's share before the training; then losses, Adam's step and the settings of the
        parameter groups at the end.
    """

    def read(kind: str, parameter: str, start: int, target: torch.Tensor) -> None:
        target.copy_(state[kind, parameter][start : start + target.numel()])

    with engine_of(placement, shape, network) as engine:
        ema = Ema(engine, DECAY)
        fragments.load_state(engine, read, first - 1)
        ema.load(read)
        loaded = _owned(engine, ema)
        losses = _train(engine, ema, first, last)
        settings = engine.parameter_group_settings()
        return loaded, losses, fragments.optimizer_step(engine), settings


def whole(owned: Sequence[Pieces]) -> State:
    """Join the ranks' shares of the state, in which each element belongs to exactly one rank."""
    parts: dict[tuple[str, str], list[tuple[int, torch.Tensor]]] = {}
    for kind, parameter, start, elements in (piece for pieces in owned for piece in pieces):
        parts.setdefault((kind, parameter), []).append((start, elements))
    state = {}
    for key, pieces in parts.items():
        pieces.sort(key=lambda piece: piece[0])
        assert pieces[0][0] == 0
        assert all(start + len(part) == after for (start, part), (after, _) in pairwise(pieces))
        state[key] = torch.cat([part for _, part in pieces])
    return state


def _train(engine: TrainingEngine, ema: Ema, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last + 1):
        losses += train_steps(engine, step, step)
        ema.update()
    return losses


def _owned(engine: TrainingEngine, ema: Ema) -> Pieces:
    def piece(owned: Fragment) -> tuple[str, str, int, torch.Tensor]:
        return owned.kind, owned.parameter, owned.start, owned.tensor.clone()

    return [piece(owned) for owned in (*fragments.owned_fragments(engine), *ema.fragments())]


@contextlib.contextmanager
def engine_of(placement: Placement, shape: Shape, network: Network) -> Iterator[TrainingEngine]:
    changes = {"share_embeddings": network.share_embeddings, **FORMS[network.form]}
    config = MODEL.model_copy(update=changes)
    usual = engine_module.parameter_groups
    if network.groups == "one":
        engine_module.parameter_groups = lambda model, decay: [
            {"params": list(model.parameters()), "weight_decay": decay}
        ]
    try:
        model = make_model(config)
        engine = make_engine(placement, shape, model=model, frozen=network.frozen)
    finally:
        engine_module.parameter_groups = usual
    if network.r_drop:
        engine.loss = RDrop(SMOOTHING, network.r_drop)
    yield engine
    engine.destroy()
