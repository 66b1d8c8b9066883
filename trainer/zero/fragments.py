"""Training state as named fragments (fragment.py), independent of the ZeRO stage.

Exactly one rank owns each element of the state, but several ranks may hold a copy. To save, a rank
writes the fragments that it owns. To load, a rank fills all fragments that it holds. The saved
fragments may come from another number of ranks or another ZeRO stage.

`trainer.zero.stages` locates the state in DeepSpeed's buffers. A frozen parameter has only master
weights, which `trainer.zero.frozen` keeps.
"""

from collections.abc import Container, Iterator, Sequence

import torch

from run_store.checkpoints.fragment import EMA, MASTER, STEP, Fragment, FragmentReader
from trainer.errors import EngineError
from trainer.zero.engine import TrainingEngine


def owned_fragments(
    engine: TrainingEngine, kinds: Sequence[str] | None = None
) -> Iterator[Fragment]:
    """Yield the fragments that this rank writes to a checkpoint; one rank owns each element.

    Args:
        engine: the engine of this rank.
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


def held_fragments(
    engine: TrainingEngine, kinds: Sequence[str] | None = None
) -> Iterator[Fragment]:
    """Yield the fragments that this rank holds, as views; writing to them changes the state.

    Args:
        engine: the engine of this rank.
        kinds: MASTER and names of moments; None for all kinds of state.
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
    engine: TrainingEngine, read: FragmentReader, optimizer_step: int, fresh: Container[str] = ()
) -> None:
    """Fill master weights, moments and the step, then refresh the weights that forward reads.

    Args:
        engine: the engine of this rank.
        read: reads the fragments of a checkpoint.
        optimizer_step: the number of updates before the checkpoint.
        fresh: the parameters that keep their initial weights and get zero moments.
    """
    create_moments(engine, optimizer_step)
    engine.frozen.load(engine.module, engine.parameter_shapes, engine.stage, read, fresh)
    for held in held_fragments(engine):
        if held.parameter not in fresh:
            read(held.kind, held.parameter, held.start, held.tensor)
    engine.stage.refresh_compute_weights()


@torch.no_grad()
def create_moments(engine: TrainingEngine, optimizer_step: int) -> None:
    """Allocate zero moments, as the optimizer's first step would, so that they can be loaded."""
    assert not {MASTER, EMA} & set(engine.moments), engine.moments  # these names are reserved
    state = engine.stage.torch_optimizer.state
    for tensor in engine.stage.optimized_tensors():
        state[tensor] = {
            STEP: torch.tensor(float(optimizer_step), device=tensor.device),
            **{moment: torch.zeros_like(tensor) for moment in engine.moments},
        }


def optimizer_step(engine: TrainingEngine) -> int:
    """Return the number of updates of the optimizer; Adam's bias correction depends on it."""
    state = engine.stage.torch_optimizer.state[engine.stage.optimized_tensors()[0]]
    return int(state[STEP]) if state else 0


def _require_known_state(engine: TrainingEngine) -> None:
    """Require that a checkpoint holds the optimizer's whole state.

    Raises:
        EngineError: the optimizer's state has other moments than its kind names.
    """
    named = {STEP, *engine.moments}
    for tensor in engine.stage.optimized_tensors():
        found = engine.stage.torch_optimizer.state[tensor].keys()
        if found and found != named:
            raise EngineError(
                f"The optimizer's state has {', '.join(sorted(found))}, but its OptimizerKind "
                f"names {', '.join(sorted(named))}, so a checkpoint would not hold the whole "
                "state. Correct `moments` of the OptimizerKind"
            )
