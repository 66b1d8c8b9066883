"""The training state as named fragments, whatever ZeRO does with it underneath.

A fragment is a run of consecutive elements of one flattened parameter: of its fp32 master
weights (`master`), of one of the optimizer's moments (`exp_avg`, …), or of the weights' moving
average (`ema`), which `trainer.state.ema` keeps. Every element of the state is owned by
exactly one rank. Saving writes what a rank owns; loading fills what it holds, from fragments cut
under any other number of ranks and any other ZeRO stage.

`trainer.zero.stages` knows where the state lies. A frozen parameter has master weights alone, which
`trainer.zero.frozen` keeps.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trainer.errors import EngineError

if TYPE_CHECKING:
    from trainer.zero.engine import Engine

MASTER = "master"
EMA = "ema"
STEP = "step"  # the number of updates, beside the moments in torch's state


@dataclass(frozen=True)
class Fragment:
    """Elements `start … start + len(tensor)` of a flattened parameter; a view of the state."""

    kind: str
    parameter: str
    start: int
    tensor: torch.Tensor

    @property
    def stop(self) -> int:
        return self.start + self.tensor.numel()


# A function (kind, parameter, start, stop) that reads the elements [start, stop) of a parameter's
# state, as fp32 on the host.
FragmentReader = Callable[[str, str, int, int], torch.Tensor]


def owned_fragments(engine: "Engine", kinds: Sequence[str] | None = None) -> Iterator[Fragment]:
    """The fragments that this rank writes to a checkpoint; over all ranks, each element once.

    Args:
        kinds: as in `held_fragments`.
    """
    rank, world_size = engine.placement.rank, engine.placement.world_size
    for held in held_fragments(engine, kinds):
        if not engine.stage.replicated or held.parameter in engine.frozen:
            yield held
            continue
        numel = held.tensor.numel()
        start, stop = numel * rank // world_size, numel * (rank + 1) // world_size
        if start < stop:
            yield Fragment(held.kind, held.parameter, start, held.tensor[start:stop])


def held_fragments(engine: "Engine", kinds: Sequence[str] | None = None) -> Iterator[Fragment]:
    """The fragments that lie on this rank, as views; writing to them changes the state.

    Args:
        kinds: MASTER and names of moments; None for all that there are.
    """
    if kinds is None:
        _require_known_state(engine)
        kinds = (MASTER, *engine.moments)
    for name, parameter in engine.module.named_parameters():
        for kind in kinds if name not in engine.frozen else ():
            located = engine.stage.locate(parameter, kind)
            if located is not None:
                start, tensor = located
                yield Fragment(kind, name, start, tensor.detach())
    if MASTER in kinds:
        yield from engine.frozen.fragments()


@torch.no_grad()
def load_state(
    engine: "Engine", read: FragmentReader, optimizer_step: int, fresh: Container[str] = ()
) -> None:
    """Fill master weights, moments and the step, then refresh the weights computed with.

    Args:
        fresh: parameters that keep the weights that they were built with, and have no moments yet.
    """
    create_moments(engine, optimizer_step)
    engine.frozen.load(engine, read, fresh)
    for held in held_fragments(engine):
        if held.parameter not in fresh:
            held.tensor.copy_(read(held.kind, held.parameter, held.start, held.stop))
    engine.stage.refresh_compute_weights()


@torch.no_grad()
def create_moments(engine: "Engine", optimizer_step: int) -> None:
    """Allocate moments as a first step would: a moment must exist before it is set."""
    assert not {MASTER, EMA} & set(engine.moments), engine.moments  # they name other fragments
    state = engine.stage.torch_optimizer.state
    for tensor in engine.stage.optimized_tensors():
        state[tensor] = {
            STEP: torch.tensor(float(optimizer_step), device=tensor.device),
            **{moment: torch.zeros_like(tensor) for moment in engine.moments},
        }


def optimizer_step(engine: "Engine") -> int:
    """How many updates the optimizer has made; Adam's bias correction depends on it."""
    state = engine.stage.torch_optimizer.state[engine.stage.optimized_tensors()[0]]
    return int(state[STEP]) if state else 0


def _require_known_state(engine: "Engine") -> None:
    """Require that a checkpoint holds all that the optimizer remembers.

    Raises:
        EngineError: the optimizer has made moments that its kind does not name, or lacks some.
    """
    named = {STEP, *engine.moments}
    for tensor in engine.stage.optimized_tensors():
        found = engine.stage.torch_optimizer.state[tensor].keys()
        if found and found != named:
            raise EngineError(
                f"The optimizer's state has {', '.join(sorted(found))}, its kind names "
                f"{', '.join(sorted(named))}: no checkpoint would hold all that a resumed run "
                "needs. Correct the moments of the OptimizerKind"
            )
