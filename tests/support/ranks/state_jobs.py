"""Job for a `RankPool` that measures the state of DeepSpeed and the checkpoint writer."""

from support.ranks.engine_jobs import SLOTS, Shape, make_engine, train_steps
from trainer.process.placement import Placement
from trainer.zero import fragments


def bytes_held(
    placement: Placement, shape: Shape, patterns: tuple[str, ...] = ()
) -> dict[str, int]:
    """Return the bytes of a rank's state after a step, by part, from the sizes of its tensors."""
    engine = make_engine(placement, shape, frozen=patterns)
    train_steps(engine, 1, 1)
    stage = engine.stage
    held = [getattr(p, "ds_tensor", p) for p in engine.module.parameters()]
    optimized = stage.optimized_tensors()
    own = {p.data_ptr() for p in engine.module.parameters() if p.numel()}
    moments = [
        value
        for tensor in optimized
        for name, value in stage.torch_optimizer.state[tensor].items()
        if name in engine.moments
    ]
    found = {
        "slots": SLOTS,
        "not trained": sum(_product(engine.parameter_shapes[n]) for n in engine.frozen.names),
        "frozen": _bytes([f.tensor for f in engine.frozen.fragments()]),
        "parameters": sum(_product(s) for s in engine.parameter_shapes.values()),
        "weights": _bytes(held),
        "master": _bytes([t for t in optimized if t.data_ptr() not in own]),
        "moments": _bytes(moments),
        "checkpoint_copy": _bytes([f.tensor for f in fragments.owned_fragments(engine)]),
    }
    engine.destroy()
    return found


def _bytes(tensors: list) -> int:  # type: ignore[type-arg]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
