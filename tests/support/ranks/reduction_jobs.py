"""Jobs for a `RankPool` whose reductions go wrong: see trainer/zero/reduction_check.py."""

import random
from collections.abc import Callable
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

from data_pipeline.batching.plan import slots_of_rank
from support.ranks.engine_jobs import (
    LEARNING_RATE,
    SLOTS,
    VOCABULARY,
    Shape,
    make_engine,
    micro_batch,
)
from trainer.process.placement import Placement
from trainer.tasks.batch import to_device
from trainer.tasks.randomness import seed_torch
from trainer.training.step_exchange import StepReport, exchange
from trainer.zero.engine import TrainingEngine

REDUCTIONS = ("all_reduce", "reduce", "reduce_scatter_tensor", "reduce_scatter")
LEAST_ELEMENTS = 100  # of a bucket of gradients
# Changes some elements of a reduced bucket in place, with random numbers of its own.
Fault = Callable[[torch.Tensor, random.Random], None]


def flip_a_bit(bucket: torch.Tensor, drawn: random.Random) -> None:
    flat = bucket.view(-1).view(torch.int32 if bucket.dtype == torch.float32 else torch.int16)
    nonzero = flat.nonzero().flatten()
    place = int(nonzero[drawn.randrange(len(nonzero))])
    flat[place] ^= 1 << drawn.randrange(8 * bucket.element_size() - 2)


def exchange_elements(bucket: torch.Tensor, drawn: random.Random) -> None:
    flat = bucket.view(-1)
    nonzero = flat.nonzero().flatten()
    while True:
        one, other = (int(nonzero[drawn.randrange(len(nonzero))]) for _ in range(2))
        if abs(one - other) > 200 and flat[one] != flat[other]:
            flat[[one, other]] = flat[[other, one]]
            return


def lose_a_chunk(bucket: torch.Tensor, drawn: random.Random) -> None:
    """A partial sum that came too late: some elements lack a share."""
    flat = bucket.view(-1)
    begin = drawn.randrange(len(flat) // 2)
    flat[begin : begin + len(flat) // 8] *= 0.5


FAULTS: dict[str, Fault] = {
    "flipped bit": flip_a_bit,
    "exchanged elements": exchange_elements,
    "late partial sum": lose_a_chunk,
}


def wrong_reductions(
    placement: Placement, shape: Shape, steps: int, fault: str | None, seed: int
) -> list[list[str]]:
    """`TrainingEngine.wrong_reductions` of each step, the last of which has a fault."""
    engine = make_engine(placement, shape)
    drawn = random.Random(seed)
    found = []
    for step in range(1, steps + 1):
        report = _passes(engine, step)
        while engine.refit(report.amax) is not None:
            report = _passes(engine, step)
        if fault is not None and step == steps:
            engine.discard_gradients()
            undo = _plant(FAULTS[fault], drawn)
            report = _passes(engine, step)
            undo()
        wrong = engine.wrong_reductions()
        found.append(wrong)
        if not wrong:
            engine.step(LEARNING_RATE, report.amax)
    engine.destroy()
    return found


def _passes(engine: TrainingEngine, step: int) -> StepReport:
    placement = engine.placement
    slots = slots_of_rank(placement.rank, placement.world_size, SLOTS)
    tokens = sum(micro_batch(step, slot).tokens("tgt") for slot in range(SLOTS))
    batches, results = [], []
    for number in range(engine.slots_per_rank):
        is_dummy = number >= len(slots)
        slot = slots[min(number, len(slots) - 1)]
        batch = to_device(micro_batch(step, slot), VOCABULARY, placement.torch_device)
        seed_torch(1, "dropout", step, slot)
        result = engine.forward_backward(
            batch,
            units_global=tokens,
            is_accumulation_boundary=number == engine.slots_per_rank - 1,
            is_dummy=is_dummy,
        )
        if not is_dummy:
            batches.append(batch)
            results.append(result)
    return exchange(
        slots,
        batches,
        results,
        micro_batches_per_step=SLOTS,
        data_stall_seconds=0.0,
        stop_requested=False,
        placement=placement,
    )


def _plant(fault: Fault, drawn: random.Random) -> Callable[[], None]:
    """Let the next reduction of a bucket go wrong, on all ranks; return what undoes it."""
    pending = [fault]
    places = [(deepspeed.comm.comm.cdb, name) for name in REDUCTIONS] + [(dist, "all_reduce")]
    before = [(owner, name, getattr(owner, name)) for owner, name in places]
    inside: list[bool] = []  # DeepSpeed's function calls torch's

    def wrapped(reduction: Callable[..., Any]) -> Callable[..., Any]:
        def reduced(*arguments: Any, **options: Any) -> Any:
            if inside:
                return reduction(*arguments, **options)
            inside.append(True)
            work = reduction(*arguments, **options)
            inside.clear()
            result = options["output_tensor"] if "output_tensor" in options else arguments[0]
            if result.numel() >= LEAST_ELEMENTS and pending:
                if work is not None:
                    work.wait()
                pending.pop()(result, drawn)
            return work

        return reduced

    for owner, name, reduction in before:
        setattr(owner, name, wrapped(reduction))

    def undo() -> None:
        for owner, name, reduction in before:
            setattr(owner, name, reduction)

    return undo
