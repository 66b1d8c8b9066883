"""Estimate the speed and the remaining time of a run, from its metrics file or measured steps.

metrics file of the run, or of --from RUN ──▶ its last steps ──┐
otherwise a few steps of one rank in this process ─────────────┴──▶ Speed ──▶ hours
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cluster.recipe import Recipe
from foundation.file_model import MAX_COUNT
from run_store.record.metrics_file import read_backwards
from run_store.record.metrics_lines import TrainLine

STEPS_READ = 100
MIN_SECONDS = MIN_SHARE = 1e-9  # plausible step durations and shares exceed this


@dataclass(frozen=True)
class Speed:
    """Training speed with a number of ranks.

    Attributes:
        step_seconds: median duration of the steps.
        units_per_second: loss units, for example target tokens, per second over all ranks.
        steps: number of steps from which the speed was computed.
        goodput: share of a run's time spent in steps, or None if it is not known.
        origin: source of the numbers, as text.
    """

    ranks: int
    step_seconds: float
    units_per_second: float
    steps: int
    goodput: float | None
    origin: str


def speed_of(lines: Iterable[TrainLine], origin: str) -> Speed | None:
    """Return the speed in the newest steps, or None if no step has plausible numbers.

    Only steps with the same number of ranks as the newest step count. Steps with implausible
    numbers, such as 0 ranks or 0 seconds, are left out.

    Args:
        lines: the steps, newest first.
    """
    taken = [line for line in lines if _is_plausible(line)]
    if not taken:
        return None
    ranks = taken[0].world_size
    taken = [line for line in taken if line.world_size == ranks]
    seconds = statistics.median(line.step_seconds for line in taken)
    units = statistics.fmean(line.target_tokens for line in taken)
    return Speed(ranks, seconds, units / seconds, len(taken), taken[0].goodput, origin)


def _is_plausible(line: TrainLine) -> bool:
    return (
        line.world_size > 0
        and MIN_SECONDS < line.step_seconds < MAX_COUNT
        and (not line.goodput or MIN_SHARE < line.goodput < MAX_COUNT)
    )


def recorded_speed(metrics: Path, origin: str) -> Speed | None:
    """Return the speed of the last steps in a metrics file, or None without plausible steps.

    Raises:
        RunError: the metrics file cannot be read.
    """
    lines = (line for line in read_backwards(metrics) if isinstance(line, TrainLine))
    return speed_of(islice(lines, STEPS_READ), origin)


@dataclass(frozen=True)
class Duration:
    """Hours until `trainer.max_steps`.

    Attributes:
        ranks: number of ranks for which the hours are estimated.
        at_best: True if the speed was measured with another number of ranks. The estimate then
            assumes that speed is proportional to the number of ranks, which is optimistic.
    """

    ranks: int
    hours: float
    at_best: bool


def duration(recipe: Recipe, speed: Speed, steps: int, processors: int | None) -> Duration:
    """Estimate the duration of `steps` steps.

    If the goodput is not known, the estimate excludes validations and checkpoints.

    Args:
        processors: number of CPUs that the ranks share on this machine, or None if each rank has
            dedicated CPUs.
    """
    ranks, slots = recipe.cluster.max_ranks, recipe.batching.micro_batches_per_step
    passes, measured_passes = -(-slots // ranks), -(-slots // speed.ranks)
    seconds = speed.step_seconds * passes / measured_passes
    if processors is not None and not recipe.cluster.gpus_per_rank:
        threads = recipe.cluster.threads_per_rank
        crowd, measured_crowd = (max(1.0, n * threads / processors) for n in (ranks, speed.ranks))
        seconds *= crowd / measured_crowd
    hours = steps * seconds / 3600 / (speed.goodput or 1.0)
    return Duration(ranks, hours, at_best=ranks != speed.ranks)
