"""Stage *exact*: check that `engine.numerics: exact` gives the same bits.

Restarts, ZeRO stages, numbers of ranks and checks must not change them.
"""

import json
from dataclasses import replace
from typing import Any

from support.ranks import engine_jobs
from support.ranks.engine_jobs import Shape

import benchmarks.gpu_check.path_stage as commands
from benchmarks.gpu_check.engine_stage import LAST, SAVED, placement, resumed
from benchmarks.gpu_check.outcomes import Measurement, Work, WrongResultError, require_gpu
from benchmarks.gpu_check.two_ranks import STEPS, losses_of_ranks, without_dropout
from model.config.transformer import AttentionBackend

STAGES = {"fp32": (0, 1, 2, 3), "bf16": (1, 2, 3)}
COMPILED_STAGES = {"fp32": (0, 1, 2), "bf16": (1, 2)}
UNIT = "numbers differ"
CLIPPING = 0.5  # smaller than the norm of the gradients, so that clipping depends on the norm


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


def restart(work: Work, precision: str, attention: AttentionBackend | None = None) -> Measurement:
    """Compare interrupted with uninterrupted runs of every ZeRO stage."""
    for stage in STAGES[precision]:
        shape = replace(_shape(stage, precision), attention=attention)
        losses, weights, _ = engine_jobs.train(placement(work), shape, LAST)
        _require_equal(resumed(work, shape)[:2], (losses[SAVED:], weights), f"stage {stage}")
    return Measurement(0.0, UNIT, f"stages {', '.join(map(str, STAGES[precision]))}")


def restart_varlen(work: Work) -> Measurement:
    """Compare as in `restart`, with packed attention in bf16, which its kernel requires."""
    return restart(work, "bf16", AttentionBackend.VARLEN)


def stages(work: Work, precision: str) -> Measurement:
    """Compare the ZeRO stages with one another."""
    first, *others = STAGES[precision]
    expected = engine_jobs.train(placement(work), _shape(first, precision), LAST)[:2]
    for stage in others:
        found = engine_jobs.train(placement(work), _shape(stage, precision), LAST)[:2]
        _require_equal(found, expected, f"stage {stage} compared with stage {first}")
    return Measurement(0.0, UNIT)


def compiled(work: Work, precision: str) -> Measurement:
    """Compare ZeRO stages and interrupted runs with one another, with compiled layers."""
    require_gpu(work)
    expected = None
    for stage in COMPILED_STAGES[precision]:
        shape = replace(_shape(stage, precision), compile="layers")
        losses, weights, _ = engine_jobs.train(placement(work), shape, LAST)
        expected = expected or (losses, weights)
        _require_equal((losses, weights), expected, f"stage {stage} compared with the first one")
        _require_equal(resumed(work, shape)[:2], (losses[SAVED:], weights), f"stage {stage}")
    return Measurement(0.0, UNIT, f"stages {', '.join(map(str, COMPILED_STAGES[precision]))}")


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


def verified(work: Work, precision: str) -> Measurement:
    """Compare trainings with and without checksums of sums; an alarm makes the row fail."""
    for stage in STAGES[precision]:
        shape = _shape(stage, precision)
        found, expected = (
            engine_jobs.train(placement(work), each, LAST, CLIPPING)[:2]
            for each in (replace(shape, verify_reductions=True), shape)
        )
        _require_equal(found, expected, f"stage {stage}")
    return Measurement(0.0, UNIT, "no alarm")


def verify_zero(work: Work, stage_and_precision: str) -> Measurement:
    """Run `transloom verify-zero` with one rank, in all cells of a ZeRO stage."""
    stage, _, precision = stage_and_precision.partition("-")
    of_path = commands.work_of_path(work)
    commands.prepare(of_path)
    words = ["verify-zero", "phrasebook", "--json", "--ranks", 1, "--stage", stage]
    words += [*commands.settings(of_path), f"engine.precision={precision}"]
    report = json.loads(commands.transloom(of_path, *words, may_find_problems=True))
    if wrong := [each for each in report["verdicts"] if each["outcome"] != "equal"]:
        raise WrongResultError(f"{wrong[0]}", float(len(wrong)), "cells are not equal")
    return Measurement(float(len(report["verdicts"])), "cells equal to plain torch")
