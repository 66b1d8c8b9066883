"""Pairs per second and core that subword sampling draws, by compiled code and by Python.

Both sides of Multi30k's training set in windows of 2,000 pairs, with a joint model of 8,000 pieces,
as a data worker draws them: normalised, segmented at random, flat with EOS. The two alternate,
their pieces are compared, and CPU time is counted, which others on the machine hardly change.

    .venv/bin/python benchmarks/subword_sampling.py DATA [--pairs N] [--rounds N]

DATA: the folder of train.en and train.de.
"""

import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from data_pipeline.arrays import FieldArrays
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.random_keys import splitmix64
from data_pipeline.tokenizers import compiled_segmentation
from data_pipeline.tokenizers.compiled_segmentation import LIBRARY, Library
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer

ALPHAS = {"bpe": 0.1, "unigram": 0.2}
WINDOW = 2000


def drawing(model: bytes, library: Library | None) -> SentencePieceTokenizer:
    """A tokenizer whose segmentations are drawn by the library, or by Python without one."""
    compiled_segmentation.installed_library = lambda: library
    tokenizer = SentencePieceTokenizer(model, "benchmark")
    tokenizer.sample_field(["warm"], splitmix64(0, 1), 0.0)
    return tokenizer


def draw(
    tokenizer: SentencePieceTokenizer, sides: list[list[str]], alpha: float
) -> tuple[float, list[FieldArrays]]:
    """CPU seconds, and what was drawn."""
    seeds = splitmix64(1, len(sides[0]))
    started = time.process_time()
    drawn = [
        tokenizer.sample_field(side[start : start + WINDOW], seeds[start : start + WINDOW], alpha)
        for side in sides
        for start in range(0, len(side), WINDOW)
    ]
    return time.process_time() - started, drawn


def same(ours: list[FieldArrays], theirs: list[FieldArrays]) -> bool:
    return all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.lengths, b.lengths)
        for a, b in zip(ours, theirs, strict=True)
    )


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
    print("| kind, alpha | compiled, pairs/s | Python, pairs/s | times as fast, median |")
    print("|---|---|---|---|")
    for kind, alpha in ALPHAS.items():
        config = TokenizerConfig.model_validate({"type": kind, "vocabulary_size": arguments.pieces})
        model = SentencePieceTokenizer.train(sides[0] + sides[1], config, "benchmark").model
        speeds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(arguments.rounds):
            found = {}
            for compiled in (True, False):
                # A fresh tokenizer each time: Python keeps the words that it has seen.
                tokenizer = drawing(model, Library(LIBRARY) if compiled else None)
                seconds, found[compiled] = draw(tokenizer, sides, alpha)
                speeds[compiled].append(len(sides[0]) / seconds)
            assert same(found[True], found[False])
        ratio = statistics.median(a / b for a, b in zip(*speeds.values(), strict=True))
        ranges = [f"{min(speed):,.0f}–{max(speed):,.0f}" for speed in speeds.values()]
        print(f"| {kind}, {alpha} | {ranges[0]} | {ranges[1]} | {ratio:.0f} |", flush=True)


if __name__ == "__main__":
    main()
