"""`transloom tune-decoding`: how best to translate with a run."""

import math
from typing import Annotated, Literal

import typer

from cluster.terminal import Terminal
from model.config.transformer import MAX_BEAM_SIZE, MAX_LENGTH_PENALTY
from transloom.cli.options import (
    JsonOption,
    MovedDatasetOption,
    PrecisionOption,
    ProcessesOption,
    RunArgument,
    answer,
)


def tune_decoding(
    run: RunArgument,
    checkpoints: Annotated[
        str,
        typer.Option(
            metavar="WHICH,WHICH,…",
            help="Weights to try: newest, best, a step, average-of-…; last:K and best:K are the "
            "average of so many, made where it is not there.",
        ),
    ] = "newest",
    beam_sizes: Annotated[
        str | None,
        typer.Option(metavar="SIZE,…", help="Default: 1,2,3,4,5,6,8,10. Each is a search."),
    ] = None,
    length_penalties: Annotated[
        str | None,
        typer.Option(metavar="ALPHA,…", help="Default: 0,0.2,…,2. They cost no search."),
    ] = None,
    metric: Annotated[
        Literal["bleu", "chrf", "bleu_literature"],
        typer.Option(
            help="bleu_literature: of lower-cased Moses tokens, as papers on Multi30k do."
        ),
    ] = "bleu",
    on: Annotated[
        str, typer.Option("--set", help="validation; a test set is refused.")
    ] = "validation",
    dataset: MovedDatasetOption = None,
    precision: PrecisionOption = "fp32",
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose beam size, length penalty and weights on the validation set.

    All combinations are scored. Those that chance may set apart from the best one are named (paired
    bootstrap). Of these the smallest beam is recommended, with the length penalty that is nearest
    to the recipe's. The result is kept in the run's folder as tuned-decoding.json.

    Examples:

      transloom tune-decoding runs/multi30k-ende

      transloom tune-decoding runs/multi30k-ende --checkpoints newest,best,last:5,last:10

      transloom tune-decoding runs/multi30k-ende --beam-sizes 4,5 --metric chrf --json
    """
    if on != "validation":
        raise typer.BadParameter(
            f"--set is {on!r}, but decoding is chosen on validation alone: chosen on the set that "
            "is reported, it would make the report too good"
        )
    from transloom.inference.tuned_decoding import Grid

    grid = Grid()
    if beam_sizes is not None:
        grid = Grid(_beam_sizes(beam_sizes), grid.length_penalties)
    if length_penalties is not None:
        grid = Grid(grid.beam_sizes, _penalties(length_penalties))
    names = [name.strip() for name in checkpoints.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("--checkpoints names none: give some as in newest,last:5")
    from transloom.commands import tuning_decoding

    tuned = tuning_decoding.tune_decoding(
        run, names, grid, metric, dataset, precision, processes, Terminal(stderr=True)
    )
    answer(tuning_decoding.tuned_json(run, tuned), as_json, tuning_decoding.tuned_text(run, tuned))


def _beam_sizes(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(w.isascii() and w.isdecimal() and 1 <= int(w) <= MAX_BEAM_SIZE for w in words):
        raise typer.BadParameter(
            f"--beam-sizes is {text!r}: give sizes from 1 to {MAX_BEAM_SIZE:,} as in 1,4,8"
        )
    return tuple(sorted({int(word) for word in words}))


def _penalties(text: str) -> tuple[float, ...]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number <= MAX_LENGTH_PENALTY for number in numbers):
        raise typer.BadParameter(
            f"--length-penalties is {text!r}: give numbers from 0 to {MAX_LENGTH_PENALTY:g} as in "
            "0,0.6,1"
        )
    return tuple(sorted(set(numbers)))
