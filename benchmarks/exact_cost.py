"""Cost of exact numerics: steps of the engine with `numerics: exact` and `fast`.

One process with the environment of a rank and one thread; the tiny and the base model on synthetic
micro-batches of equal sentences, four per step, in fp32 and bf16. Engines of both kinds are built
in turn, because exact numerics change torch's settings process-wide; each takes some steps after a
warm-up. The figure is the ratio of the medians of CPU time, which depends little on other
processes, with its range over the rounds. The goal is at most 1.15.

    .venv/bin/python benchmarks/exact_cost.py [--rounds N]
"""

import statistics
import time
from datetime import timedelta
from typing import Literal

import torch

from benchmarks.finite_flag import MODELS, SLOTS, VOCABULARY, micro_batch
from benchmarks.support.as_rank import restart_in_rank_environment
from benchmarks.support.command_line import benchmark_parser, names_from, parse_arguments
from benchmarks.support.engine_step import summed, transformer_engine
from data_pipeline.batching.batch import MicroBatch
from model.config.transformer import ModelConfig
from trainer.config import EngineConfig
from trainer.process.distributed import process_group
from trainer.process.placement import Placement
from trainer.tasks.batch import to_device
from trainer.zero.engine import TrainingEngine

PLACEMENT = Placement()
WARM_UP, STEPS = 3, {"tiny": 10, "base": 3}
Precision = Literal["fp32", "bf16"]
Numerics = Literal["fast", "exact"]


def clock(placement: Placement) -> float:
    """Return the CPU time in seconds or, on a GPU, the time when its work is done."""
    if placement.device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of_a_step(engine: TrainingEngine, batch: MicroBatch) -> float:
    started = clock(engine.placement)
    on_device = to_device(batch, VOCABULARY, engine.placement.torch_device)
    report = summed(engine, on_device, batch.tokens("tgt"), SLOTS)
    wrong = engine.wrong_reductions()
    assert not wrong, f"the checksums of {wrong} are wrong"
    engine.step(1e-4, report.amax)
    return clock(engine.placement) - started


def measured(
    config: ModelConfig,
    tokens: int,
    settings: EngineConfig,
    steps: int,
    placement: Placement = PLACEMENT,
) -> float:
    """Build an engine, and return the seconds of its median step."""
    engine = transformer_engine(config, VOCABULARY, settings, SLOTS, placement)
    batch = micro_batch(tokens)
    taken = [seconds_of_a_step(engine, batch) for _ in range(WARM_UP + steps)]
    engine.destroy()
    return statistics.median(taken[WARM_UP:])


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=names_from(MODELS), default=list(MODELS))
    parser.add_argument("--steps", type=int, help="of each engine in a round, after the warm-up")
    arguments = parse_arguments(parser, smoke="--rounds 1 --models tiny --steps 1")
    restart_in_rank_environment()
    print("| model | precision | ms a step, fast | exact | ratio | range of the rounds |")
    print("|---|---|---|---|---|---|")
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    kinds: tuple[Numerics, ...] = ("fast", "exact")
    with process_group(PLACEMENT, timedelta(minutes=1)):
        for name in arguments.models:
            config, tokens = MODELS[name]
            steps = arguments.steps or STEPS[name]
            for precision in precisions:
                rounds = [
                    [
                        measured(
                            config, tokens, EngineConfig(precision=precision, numerics=kind), steps
                        )
                        for kind in kinds
                    ]
                    for _ in range(arguments.rounds)
                ]
                fast, exact = (statistics.median(kind) for kind in zip(*rounds, strict=True))
                ratios = [exact / fast for fast, exact in rounds]
                print(
                    f"| {name} | {precision} | {1000 * fast:.0f} | {1000 * exact:.0f} "
                    f"| {exact / fast:.3f} | {min(ratios):.3f}–{max(ratios):.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
