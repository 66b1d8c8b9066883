"""How cost grows: a step's time and memory against tokens, sentence length and layers.

The engine as the trainer uses it, with one rank, one thread and random ids; a step is one
micro-batch: forward, backward, update. The model is tiny: 2 layers in each stack, vocabulary size
1,000, width 128, but 64 where layers are counted. Sentences of a micro-batch are equal in length.

    time    CPU time of a step, median and range. Repetitions visit all points of a table, forth
            and back by turns, after one to warm up.
    memory  peak during a step over what the process had before, in a process for each point.

An exponent is the slope of a curve whose axes are logarithmic: of the straight line that fits best,
and between the last two points, where constant parts matter least. 1 is linear, 2 quadratic.
With the number of tokens fixed, 0 is a cost that sentence length does not change, and 1 attention
whose cost is quadratic in a sentence.

    .venv/bin/python benchmarks/cost_curves/cost_curves.py [--quick] [--json] [--picture FILE.png]

The picture is drawn in an environment of its own, where matplotlib is put when it is missing.
"""

import json
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.cost_curves.points import (
    Point,
    Precision,
    Setting,
    megabytes,
    milliseconds,
    one_rank,
)
from benchmarks.cost_curves.tables import Table
from benchmarks.support.as_rank import restart_in_rank_environment
from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.environments import draw
from benchmarks.support.trainings import say
from model.config.transformer import AttentionBackend

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
BACKENDS = (AttentionBackend.SDPA, AttentionBackend.MATMUL)
LENGTH = 20  # tokens of a sentence, where it is not what changes


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    tokens: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    lengths: tuple[int, ...] = (10, 30, 100, 300, 1000)
    layers: tuple[int, ...] = (1, 2, 4, 6, 8, 12)
    tokens_over_lengths: int = 4000
    tokens_over_layers: int = 1000
    repetitions: int = 5
    memory_precisions: tuple[Precision, ...] = PRECISIONS


QUICK = Sizes(
    tokens=(256, 1024, 2048),
    lengths=(10, 100, 500),
    layers=(1, 2, 4),
    tokens_over_lengths=1000,
    tokens_over_layers=500,
    repetitions=3,
    memory_precisions=("fp32",),
)
SMOKE = Sizes(
    tokens=(40, 80),
    lengths=(10, 20),
    layers=(1, 2),
    tokens_over_lengths=40,
    tokens_over_layers=40,
    repetitions=1,
    memory_precisions=("fp32",),
)


def over_tokens(sizes: Sizes) -> Table:
    points = [
        Point(Setting(precision), tokens // LENGTH * LENGTH, tokens // LENGTH, LENGTH)
        for precision, tokens in product(PRECISIONS, sizes.tokens)
    ]
    title = f"Tokens of a micro-batch, sentences of {LENGTH}"
    return Table.of(title, "tokens", "ms", points, milliseconds(points, sizes.repetitions))


def over_lengths(sizes: Sizes) -> Table:
    points = [
        Point(Setting(precision, backend), length, sizes.tokens_over_lengths // length, length)
        for precision, backend, length in product(PRECISIONS, BACKENDS, sizes.lengths)
    ]
    title = f"Sentence length, {sizes.tokens_over_lengths:,} tokens a micro-batch"
    return Table.of(title, "length", "ms", points, milliseconds(points, sizes.repetitions))


def over_layers(sizes: Sizes) -> Table:
    sentences = sizes.tokens_over_layers // LENGTH
    points = [
        Point(Setting(precision), layers, sentences, LENGTH, layers=layers, width=64)
        for precision, layers in product(PRECISIONS, sizes.layers)
    ]
    title = f"Layers of each stack, {sentences * LENGTH:,} tokens in sentences of {LENGTH}"
    return Table.of(title, "layers", "ms", points, milliseconds(points, sizes.repetitions))


def memory_over_lengths(sizes: Sizes) -> Table:
    curves = product(sizes.memory_precisions, BACKENDS, (False, True), sizes.lengths)
    points = [
        Point(Setting(*setting), length, sizes.tokens_over_lengths // length, length)
        for *setting, length in curves
    ]
    title = f"Peak memory, {sizes.tokens_over_lengths:,} tokens a micro-batch"
    return Table.of(title, "length", "MB", points, megabytes(points))


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points")
    parser.add_argument("--picture", type=Path, help="default: none is drawn")
    arguments = parse_arguments(parser, smoke="")
    restart_in_rank_environment()
    sizes = SMOKE if arguments.smoke else QUICK if arguments.quick else Sizes()
    tables, started = [], time.monotonic()
    measures = (over_tokens, over_lengths, over_layers, memory_over_lengths)
    with one_rank():
        for measure in measures:
            tables.append(measure(sizes))
            if not arguments.json:
                print(tables[-1].markdown(), flush=True)
            say(f"{measure.__name__}: done after {time.monotonic() - started:.0f} s")
    found = json.dumps([table.to_json() for table in tables])
    if arguments.json:
        print(found)
    if arguments.picture:
        draw(Path(__file__).with_name("plot.py"), found, arguments.picture)


if __name__ == "__main__":
    main()
