"""Stage *engine*: check ZeRO, the optimizer and checkpoints, with the helpers of the tests.

The network is the one of `support.ranks.engine_jobs`. If the reference is a plain torch loop on the
CPU, the network has no dropout, because a GPU draws other random numbers.
"""

import shutil
from contextlib import ExitStack, closing
from datetime import timedelta
from functools import cache
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from support.ranks import engine_jobs, poison_jobs, preflight_jobs
from support.ranks.engine_jobs import Shape
from support.records.checkpoints import Listener, make_header, work_folder

from benchmarks.gpu_check.outcomes import (
    Measurement,
    Work,
    WrongResultError,
    within,
)
from benchmarks.gpu_check.two_ranks import STEPS, losses_of_ranks, without_dropout
from data_pipeline.tasks.translation import PairShape
from run_store.checkpoints.commit import partial_folder
from run_store.checkpoints.fragment import Fragment
from trainer.process.distributed import process_group
from trainer.process.placement import Placement
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.zero import fragments
from trainer.zero.fragments import STEP

BOUNDS = {"fp32": 1e-4, "bf16": 5e-2}
# tolerance between repetitions of the same steps, because sums on a GPU have no fixed order
REPEATED_BOUND = 1e-5
UNIT = "relative difference of losses"
SAVED, LAST = 3, 6
STATE_ELEMENTS = 1_000_003
SPARE_BYTES = 200_000_000
WIDEST = PairShape(4096, 100, 100)
_UNTIL_THE_END = ExitStack()  # open until the process ends; never closed


@cache
def placement(work: Work) -> Placement:
    """Join a process group of one rank, which remains until the process ends."""
    one = Placement(device=work.device)
    _UNTIL_THE_END.enter_context(process_group(one, timedelta(seconds=60)))
    return one


def difference(found: list[float], expected: list[float]) -> float:
    """Return the largest relative difference between two curves of the same length."""
    return max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))


@cache
def plain_losses() -> list[float]:
    """Train on the CPU with torch alone, and return the losses."""
    return engine_jobs.plain_loop(without_dropout(), STEPS)[0]


def zero(work: Work, shape: str) -> Measurement:
    stage, _, precision = shape.partition("-")
    engine = engine_jobs.make_engine(
        placement(work), Shape(int(stage), precision), model=without_dropout()
    )
    losses = engine_jobs.train_steps(engine, 1, STEPS)
    engine.destroy()
    return within(difference(losses, plain_losses()), BOUNDS[precision], UNIT)


def two_ranks(work: Work) -> Measurement:
    """Train with every ZeRO stage on two ranks, each with its own device."""
    losses = losses_of_ranks(work, "fast")
    figure = max(difference(found, plain_losses()) for found in losses.values())
    return within(figure, BOUNDS["fp32"], UNIT)


def fused_adamw(work: Work) -> Measurement:
    """Check that the optimizer is fused, and keeps its step count on the device after a resume."""
    engine = engine_jobs.make_engine(placement(work), Shape(1, "bf16"))
    optimizer = engine.stage.torch_optimizer
    if not optimizer.defaults.get("fused"):
        raise WrongResultError(f"{type(optimizer).__name__} is not fused")
    fragments.create_moments(engine, SAVED)  # as in a resume
    losses = engine_jobs.train_steps(engine, SAVED + 1, LAST)
    steps = [optimizer.state[tensor][STEP] for tensor in engine.stage.optimized_tensors()]
    devices = {step.device.type for step in steps}
    if devices != {work.device}:
        raise WrongResultError(f"the step count is on {', '.join(devices)}, not on {work.device}")
    if {int(step) for step in steps} != {LAST}:
        raise WrongResultError(f"the step counts are {[int(step) for step in steps]}, not {LAST}")
    engine.destroy()
    if not torch.tensor(losses).isfinite().all():
        raise WrongResultError(f"the losses are {losses}, expected finite numbers")
    return Measurement(float(LAST), "updates counted")


def pinned_checkpoint(work: Work) -> Measurement:
    """Save a state from the device, change the state immediately, and check the saved file."""
    state = [Fragment("master", "w", 0, torch.arange(float(STATE_ELEMENTS), device=work.device))]
    folder = work_folder(work.folder / "pinned")
    writer = CheckpointWriter(
        lambda: iter(state),
        work=folder,
        attempt="a",
        placement=Placement(device=work.device),
        supervision=Listener(),  # type: ignore[arg-type]
    )
    with closing(writer):
        if writer._buffer.is_pinned() != work.is_gpu:
            raise WrongResultError("the host's copy is not pinned")
        stall = writer.save(make_header(10), final=False)
        state[0].tensor.zero_()
    path = partial_folder(folder, 10, "a") / "state-00000-of-00001.safetensors"
    if not torch.equal(load_file(path)["master:w:0"], torch.arange(float(STATE_ELEMENTS))):
        raise WrongResultError("the numbers in the file are not those of the saved state")
    return Measurement(1000 * stall, "ms for 4 MB")


def resumed(work: Work, shape: Shape) -> Any:
    """Train until a checkpoint, and return the result of `engine_jobs.resume` afterwards."""
    folder = work.folder / "resumed"
    shutil.rmtree(folder, ignore_errors=True)  # left by another row, or by an earlier attempt
    _, saved = engine_jobs.train_and_save(placement(work), shape, SAVED, folder)
    checkpoint = engine_jobs.committed(folder, [saved])
    return engine_jobs.resume(placement(work), shape, checkpoint, LAST)


def resume(work: Work, stage: str) -> Measurement:
    """Compare a run that resumes from a checkpoint with an uninterrupted run."""
    shape = Shape(int(stage))
    whole, _, _ = engine_jobs.train(placement(work), shape, LAST)
    losses, _, loaded = resumed(work, shape)
    if not loaded:
        raise WrongResultError("the numbers in the engine are not those of the checkpoint")
    return within(difference(losses, whole[SAVED:]), REPEATED_BOUND, UNIT)


def not_finite(work: Work, poison: Literal["loss", "gradient"]) -> Measurement:
    """Check with every ZeRO stage that a step that is not finite changes no state."""
    figures = []
    for stage in range(4):
        bad_slots, unchanged, losses, expected = poison_jobs.compared(
            placement(work), Shape(stage), poison
        )
        if bad_slots != [poison_jobs.BAD_SLOT[poison]] or not unchanged:
            raise WrongResultError(f"stage {stage}: slots {bad_slots}, unchanged: {unchanged}")
        figures.append(difference(losses, expected))
    return within(max(figures), REPEATED_BOUND, UNIT)


def does_not_fit(work: Work) -> Measurement:
    """Check the error message about a micro-batch that does not fit in memory."""
    widest, budget = [WIDEST], WIDEST.rows * WIDEST.source_length
    if work.is_gpu:
        message = preflight_jobs.shortage_of_gpu(
            placement(work), Shape(1), widest, budget, SPARE_BYTES
        )
        torch.cuda.set_per_process_memory_fraction(1.0)
    else:
        message = preflight_jobs.shortage_of_host(placement(work), widest, budget, SPARE_BYTES)
    for wanted in ("cannot fit forward and backward of a micro-batch of", "would fit too"):
        if wanted not in message:
            raise WrongResultError(f"the message lacks {wanted!r}: {message or 'none came'}")
    return Measurement(detail=message)
