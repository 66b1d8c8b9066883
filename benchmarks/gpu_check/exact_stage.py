"""Stage *exact*: check that `engine.numerics: exact` gives the same bits.

Restarts, ZeRO stages and numbers of ranks must not change them.
"""

import statistics
from typing import Any, cast

import torch
from support.ranks import engine_jobs
from support.ranks.engine_jobs import Shape

from benchmarks.exact_cost import Numerics, Precision, measured
from benchmarks.finite_flag import MODELS
from benchmarks.gpu_check.engine_stage import LAST, SAVED, placement
from benchmarks.gpu_check.outcomes import Measurement, Work, WrongResultError
from benchmarks.gpu_check.two_ranks import STEPS, losses_of_ranks, without_dropout

STAGES = {"fp32": (0, 1, 2, 3), "bf16": (1, 2, 3)}
UNIT = "numbers differ"
COST_GOAL = 1.15  # maximum time of an exact step, as a multiple of a fast step
ROUNDS = 3


def _shape(stage: int, precision: str) -> Shape:
    return Shape(stage, precision, numerics="exact")


def _require_equal(found: Any, expected: Any, of_what: str) -> None:
    """Require that losses and weights are bit-identical.

    Raises:
        WrongResultError: some of them differ.
    """
    (losses, weights), (expected_losses, expected_weights) = found, expected
    steps = sum(a != b for a, b in zip(losses, expected_losses, strict=True))
    numbers = sum(int((weights[name] != weight).sum()) for name, weight in expected_weights.items())
    if steps or numbers:
        raise WrongResultError(
            f"{of_what}: {steps} of {len(losses)} losses and {numbers} weights differ",
            float(steps + numbers),
            UNIT,
        )


def restart(work: Work, precision: str) -> Measurement:
    """Compare interrupted with uninterrupted runs of every ZeRO stage."""
    for stage in STAGES[precision]:
        shape, folder = _shape(stage, precision), work.folder / f"restart-{stage}-{precision}"
        losses, weights, _ = engine_jobs.train(placement(work), shape, LAST)
        _, saved = engine_jobs.train_and_save(placement(work), shape, SAVED, folder)
        checkpoint = engine_jobs.committed(folder, [saved])
        found = engine_jobs.resume(placement(work), shape, checkpoint, LAST)[:2]
        _require_equal(found, (losses[SAVED:], weights), f"stage {stage}")
    return Measurement(0.0, UNIT, f"stages {', '.join(map(str, STAGES[precision]))}")


def stages(work: Work, precision: str) -> Measurement:
    """Compare the ZeRO stages with one another."""
    first, *others = STAGES[precision]
    expected = engine_jobs.train(placement(work), _shape(first, precision), LAST)[:2]
    for stage in others:
        found = engine_jobs.train(placement(work), _shape(stage, precision), LAST)[:2]
        _require_equal(found, expected, f"stage {stage} compared with stage {first}")
    return Measurement(0.0, UNIT)


def rms_norm(work: Work) -> Measurement:
    """Compare the ZeRO stages for a network with RMSNorm, rotary positions and grouped queries.

    The network's norms read their input twice. ZeRO-3 must not change the order in which these
    gradients are summed.
    """
    newer = {"norm_kind": "rms", "norm": "pre", "positions": "rotary", "key_value_heads": 1}
    config = engine_jobs.MODEL.model_copy(update=newer)
    curves = []
    for stage in STAGES["fp32"]:
        model = engine_jobs.make_model(config)
        engine = engine_jobs.make_engine(placement(work), _shape(stage, "fp32"), model=model)
        losses = engine_jobs.train_steps(engine, 1, STEPS)
        curves.append((losses, engine_jobs.full_weights(engine)))
        engine.destroy()
    for stage, curve in zip(STAGES["fp32"], curves, strict=True):
        _require_equal(curve, curves[0], f"stage {stage}")
    return Measurement(0.0, UNIT)


def ranks(work: Work) -> Measurement:
    """Compare the losses of two ranks with those of one rank, for every ZeRO stage."""
    engine = engine_jobs.make_engine(placement(work), _shape(1, "fp32"), model=without_dropout())
    expected = engine_jobs.train_steps(engine, 1, STEPS)
    engine.destroy()
    for stage, losses in losses_of_ranks(work, "exact").items():
        _require_equal((losses, {}), (expected, {}), f"stage {stage} on two ranks")
    return Measurement(0.0, UNIT)


def cost(work: Work, precision: str) -> Measurement:
    """Measure steps with fast and exact numerics in turn.

    The model is the base model on a GPU, and a tiny one on a CPU.
    """
    config, tokens = MODELS["base" if work.is_gpu else "tiny"]
    steps, rounds = (10, ROUNDS) if work.is_gpu else (1, 1)
    kinds: tuple[Numerics, ...] = ("fast", "exact")
    ratios = []
    for _ in range(rounds):
        fast, exact = (
            measured(config, tokens, cast(Precision, precision), kind, steps, placement(work))
            for kind in kinds
        )
        ratios.append(exact / fast)
    if work.is_gpu:
        torch.cuda.empty_cache()
    ratio = statistics.median(ratios)
    return Measurement(ratio, "of a fast step's time", f"goal {COST_GOAL}", aim=ratio <= COST_GOAL)
