"""Speed of subword sampling, in pairs per second and core.

Both sides of Multi30k's training set in windows of 2,000 pairs, with a joint model of 8,000 pieces,
as a data worker samples them: normalised, segmented at random, and flat with EOS. The figure is CPU
time, which depends little on other processes.

    .venv/bin/python benchmarks/subword_sampling.py DATA [--pairs N] [--rounds N]

DATA: the folder of train.en and train.de.
"""

import time
from pathlib import Path

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.random_keys import splitmix64
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer

ALPHAS = {"bpe": 0.1, "unigram": 0.2}
WINDOW = 2000


def draw(model: bytes, sides: list[list[str]], alpha: float) -> float:
    """Return the CPU seconds of one pass with a new tokenizer, whose cache of words is empty."""
    tokenizer = SentencePieceTokenizer(model, "benchmark")
    seeds = splitmix64(1, len(sides[0]))
    started = time.process_time()
    for side in sides:
        for start in range(0, len(side), WINDOW):
            window = slice(start, start + WINDOW)
            tokenizer.sample_field(side[window], seeds[window], alpha)
    return time.process_time() - started


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=29_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pieces", type=int, default=8000, help="size of the vocabulary")
    arguments = parse_arguments(parser, smoke="{corpus} --pairs 200 --rounds 1 --pieces 400")
    sides = [
        (arguments.data / f"train.{language}").read_text().splitlines()[: arguments.pairs]
        for language in ("en", "de")
    ]
    print("| kind, alpha | pairs/s |")
    print("|---|---|")
    for kind, alpha in ALPHAS.items():
        config = TokenizerConfig.model_validate({"type": kind, "vocabulary_size": arguments.pieces})
        model = SentencePieceTokenizer.train(sides[0] + sides[1], config, "benchmark").model
        speeds = [len(sides[0]) / draw(model, sides, alpha) for _ in range(arguments.rounds)]
        print(f"| {kind}, {alpha} | {min(speeds):,.0f}–{max(speeds):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
