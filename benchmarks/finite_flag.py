"""Cost of checking every gradient for finite values: steps of the engine with and without checks.

One process with the environment of a rank and one thread; the tiny and the base model on synthetic
micro-batches of equal sentences, four per step. Two engines take steps in turn; the figure is the
median of the pairs' ratios of CPU time, which depends little on other processes. The goal is at
most 2 %.

    .venv/bin/python benchmarks/finite_flag.py [--pairs N]
"""

import statistics
from datetime import timedelta

import torch

from benchmarks.support.as_rank import restart_in_rank_environment
from benchmarks.support.command_line import benchmark_parser, names_from, parse_arguments
from benchmarks.support.datasets import equal_sentences
from benchmarks.support.engine_step import cpu_seconds_of_step, transformer_engine
from data_pipeline.batching.batch import MicroBatch
from model.config.transformer import ModelConfig
from model.networks.transformer import Vocabulary
from trainer.config import EngineConfig
from trainer.process.distributed import process_group
from trainer.process.placement import Placement
from trainer.zero.engine import TrainingEngine

VOCABULARY = Vocabulary(8000, 8000, pad_id=0, bos_id=1, eos_id=2)
TINY = ModelConfig(
    encoder_layers=4, decoder_layers=4, width=128, feed_forward_width=256, heads=4, dropout=0.3
)
# each with the number of tokens of a micro-batch
MODELS = {"tiny": (TINY, 1024), "base": (ModelConfig(), 512)}
LENGTH = 25
SLOTS = 4


class Unwatched(TrainingEngine):
    """Engine that does not check gradients."""

    def _to_watch(self, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        return [gradients[0].new_zeros(1)] * len(gradients)


def micro_batch(tokens: int) -> MicroBatch:
    return equal_sentences(tokens // LENGTH, LENGTH - 1, VOCABULARY)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--models", type=names_from(MODELS), default=list(MODELS))
    arguments = parse_arguments(parser, smoke="--pairs 1 --models tiny")
    restart_in_rank_environment()
    placement = Placement()
    print("| model | precision | ms a step | cost, median | range of the ratios |")
    print("|---|---|---|---|---|")
    with process_group(placement, timedelta(minutes=1)):
        for name in arguments.models:
            config, tokens = MODELS[name]
            for precision in ("fp32", "bf16"):
                engines = [
                    transformer_engine(
                        config,
                        VOCABULARY,
                        EngineConfig(precision=precision),
                        SLOTS,
                        placement,
                        gradient_clipping=0.0,
                        kind=kind,
                    )
                    for kind in (TrainingEngine, Unwatched)
                ]
                batch, ratios, ours = micro_batch(tokens), [], []
                for pair in range(arguments.pairs + 2):
                    watched, unwatched = (
                        cpu_seconds_of_step(engine, batch, VOCABULARY, SLOTS) for engine in engines
                    )
                    if pair >= 2:  # the engines are warm after this
                        ratios.append(watched / unwatched)
                        ours.append(watched)
                print(
                    f"| {name} | {precision} | {1000 * statistics.median(ours):.0f} "
                    f"| {100 * (statistics.median(ratios) - 1):.1f} % "
                    f"| {min(ratios):.3f}–{max(ratios):.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
