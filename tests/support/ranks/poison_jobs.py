"""Jobs for a `RankPool` whose second step is not finite, in a selectable way."""

from typing import Any, Literal

import torch

from model.losses.loss import LossSums
from model.networks.transformer import Transformer
from support.ranks.engine_jobs import (
    LEARNING_RATE,
    Shape,
    accumulate,
    finish_run,
    make_engine,
    make_model,
    train_steps,
    train_without_the_second_step,
)
from trainer.process.placement import Placement
from trainer.zero import fragments
from trainer.zero.engine import TrainingEngine

# The value that is not finite: a slot's loss, one number of a slot's gradient of one parameter, or
# the sum of the slots' gradients, each of which is finite.
Poison = Literal["loss", "gradient", "sum"]
# slots of the first of two ranks; the second one is its last before a dummy
BAD_SLOT = {"loss": 1, "gradient": 4}


def train_past_poison(placement: Placement, shape: Shape, poison: Poison) -> dict[str, Any]:
    """Train steps 1 to 4, of which the second is poisoned and therefore not applied."""
    model = make_model()
    slots: list[int | None] = []
    _add(poison, model, slots)
    engine = make_engine(placement, shape, model=model)
    losses = train_steps(engine, 1, 1)
    before = _state(engine)
    report, _ = accumulate(engine, 2, slots.append)
    slots.append(None)
    norm = 0.0
    if report.bad_slots:
        engine.discard_gradients()
    else:
        norm = engine.step(LEARNING_RATE, report.amax)
    after = _state(engine)
    unchanged = before.keys() == after.keys() and all(
        torch.equal(before[key], after[key]) for key in before
    )
    return {
        "bad_slots": report.bad_slots,
        "good_loss": report.sums[0],
        "norm": norm,
        "unchanged": unchanged,
        **finish_run(engine, losses),
    }


def compared(placement: Placement, shape: Shape, poison: Poison) -> Any:
    """Return the bad slots, whether the state was unchanged, losses, and expected losses."""
    result = train_past_poison(placement, shape, poison)
    expected = train_without_the_second_step(placement, shape)
    return result["bad_slots"], result["unchanged"], result["losses"], expected["losses"]


def _add(poison: Poison, model: Transformer, slots: list[int | None]) -> None:
    """Add hooks that change values while the newest slot is a poisoned one."""

    def spoilt_loss(module: object, inputs: object, sums: LossSums) -> LossSums | None:
        if not slots or slots[-1] != BAD_SLOT["loss"]:
            return None
        return LossSums(sums.smoothed * torch.nan, sums.nll * torch.nan)

    def spoilt_gradient(gradient: torch.Tensor) -> torch.Tensor | None:
        poisoned = gradient.clone()
        if poison == "sum" and slots and slots[-1] is not None:
            poisoned.view(-1)[0] = 3e38
        elif poison == "gradient" and slots and slots[-1] == BAD_SLOT["gradient"]:
            poisoned.view(-1)[0] = torch.nan
        return poisoned

    if poison == "loss":
        model.register_forward_hook(spoilt_loss)
    else:
        next(model.parameters()).register_hook(spoilt_gradient)


def _state(engine: TrainingEngine) -> dict[str, torch.Tensor]:
    """Return a copy of all state that this rank owns."""
    state = {
        f"{held.kind}:{held.parameter}:{held.start}": held.tensor.clone()
        for held in fragments.held_fragments(engine)
    }
    return {**state, "optimizer_step": torch.tensor(fragments.optimizer_step(engine))}
