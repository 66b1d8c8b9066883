"""Command `transloom tune-decoding`: find the best weights, beam size and length penalty.

checkpoints, averaged if needed ─▶ score of each setting on the validation set ─▶ table, advice
"""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Group

from foundation.terminal import Terminal, bars_by_name, percentage_bars, shown
from foundation.wording import counted, join_items
from model.config.transformer import MAX_BEAM_SIZE, MAX_LENGTH_PENALTY, search_label
from run_store.errors import CheckpointError, RunMismatchError
from transloom.cli.options import (
    JsonOption,
    MovedDatasetOption,
    PrecisionOption,
    ProcessesOption,
    RunArgument,
    answer,
)
from transloom.cli.run_urls import writable
from transloom.inference.decoding_options import DecodingOptions
from transloom.observe.terminal.tables import AnswerTable, Column

if TYPE_CHECKING:
    from run_store.folder import RunFolder
    from transloom.inference.engine_names import Precision
    from transloom.inference.significance import Metric
    from transloom.inference.tuned_decoding import DecodingPoint, Grid, TunedDecoding


def tune_decoding(
    run: RunArgument,
    checkpoints: Annotated[
        str,
        typer.Option(
            metavar="WHICH,WHICH,…",
            help="Checkpoints to try: newest, best, a step, or the name of an average "
            "(average-of-…). last:K and best:K are the averages of the K newest and the K "
            "best checkpoints; the command computes missing averages.",
        ),
    ] = "newest",
    beam_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE,…",
            help="Beam sizes to try; each size needs a separate search. Default: 1,2,3,4,5,6,8,10.",
        ),
    ] = None,
    length_penalties: Annotated[
        str | None,
        typer.Option(
            metavar="ALPHA,…",
            help="Length penalties to try. More of them cost little, because one beam search "
            "serves them all. Default: 0,0.2,…,2.",
        ),
    ] = None,
    metric: Annotated[
        Literal["bleu", "chrf", "bleu_literature"],
        typer.Option(
            help="Score to maximize. bleu_literature is BLEU of lower-cased Moses tokens, as in "
            "papers on Multi30k."
        ),
    ] = "bleu",
    on: Annotated[
        str,
        typer.Option(
            "--set",
            help="Dataset on which translations are scored: only the validation set is accepted; "
            "test sets are refused.",
        ),
    ] = "validation",
    dataset: MovedDatasetOption = None,
    precision: PrecisionOption = "fp32",
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best beam size, length penalty and weights on the validation set.

    The command scores all combinations, and marks those that do not differ significantly from the
    best one (paired bootstrap). Of the marked combinations, it recommends the smallest beam with
    the length penalty nearest to the recipe's. It stores the result in the run's folder as
    tuned-decoding.json.

    Examples:

      transloom tune-decoding runs/multi30k-ende

      transloom tune-decoding runs/multi30k-ende --checkpoints newest,best,last:5,last:10

      transloom tune-decoding runs/multi30k-ende --beam-sizes 4,5 --metric chrf --json
    """
    if on != "validation":
        raise typer.BadParameter(
            f"--set is {on!r}, expected validation: if you chose decoding options on a test set, "
            "the reported scores of that set would be too good"
        )
    from run_store.folder import RunFolder
    from transloom.inference.tuned_decoding import Grid

    grid = Grid()
    if beam_sizes is not None:
        grid = Grid(_beam_sizes(beam_sizes), grid.length_penalties)
    if length_penalties is not None:
        grid = Grid(grid.beam_sizes, _penalties(length_penalties))
    names = [name.strip() for name in checkpoints.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("--checkpoints is empty: name checkpoints, such as newest,last:5")
    options = TuningOptions(tuple(names), grid, metric, dataset, precision, processes)
    tuned = tune_run(run, options, Terminal(stderr=True))
    file = str(RunFolder(run).tuned_decoding)
    text = Group(_table(tuned), "", *map(shown, _advice(run, tuned, file)))
    answer({"file": file, **tuned.model_dump(mode="json")}, as_json, text)


def _beam_sizes(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(w.isascii() and w.isdecimal() and 1 <= int(w) <= MAX_BEAM_SIZE for w in words):
        raise typer.BadParameter(
            f"--beam-sizes is {text!r}, expected sizes from 1 to {MAX_BEAM_SIZE:,}, such as 1,4,8"
        )
    return tuple(sorted({int(word) for word in words}))


def _penalties(text: str) -> tuple[float, ...]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number <= MAX_LENGTH_PENALTY for number in numbers):
        raise typer.BadParameter(
            f"--length-penalties is {text!r}, expected numbers from 0 to {MAX_LENGTH_PENALTY:g}, "
            "such as 0,0.6,1"
        )
    return tuple(sorted(set(numbers)))


@dataclass(frozen=True)
class TuningOptions:
    """Options of `transloom tune-decoding`.

    Attributes:
        checkpoints: steps, names of averages, newest, best, last:K or best:K.
        dataset: folder or URL of the dataset; None for the dataset in the recipe.
        processes: number of processes that translate; None chooses it by the work and memory.
    """

    checkpoints: tuple[str, ...]
    grid: "Grid"
    metric: "Metric"
    dataset: str | None = None
    precision: "Precision" = "fp32"
    processes: int | None = None


def tune_run(run: Path, options: TuningOptions, console: Terminal) -> "TunedDecoding":
    """Score all settings on the validation set with each checkpoint, and store the result.

    Raises:
        RunMismatchError: the run does not exist or does not translate, or the dataset differs.
        CheckpointError: a checkpoint does not exist, or is damaged.
    """
    from run_store.folder import RunFolder
    from transloom.cli.load_translator import load_translator, task_of, trained_recipe
    from transloom.inference.chosen_checkpoint import find_checkpoint
    from transloom.inference.tuned_decoding import DecodingTuner, write_tuned_decoding

    folder = RunFolder(run)
    if (task := task_of(run)) != "translation":
        raise RunMismatchError(
            f"{run} was trained for {task}, which does not use beam search: name a run of "
            "translation"
        )
    decoding = DecodingOptions(precision=options.precision)
    names = list(dict.fromkeys(_found(folder, name) for name in options.checkpoints))
    first, _ = find_checkpoint(folder, names[0])
    data = trained_recipe(first, options.dataset).data
    with percentage_bars(console) as progress:
        bars = bars_by_name(progress)
        tuner = DecodingTuner(first, data, options.grid, options.metric, bars)
        for name in names:
            tuner.try_out(load_translator(run, name, decoding), options.processes)
        tuned = tuner.judge()
    with writable(folder) as written:
        write_tuned_decoding(written, tuned)
    return tuned


def _found(run: "RunFolder", name: str) -> str:
    """Resolve a name, such as newest or best:3, to a step or to the name of an average.

    If the average does not exist, the function computes it.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    from cluster.recipe import checkpoints_of_run
    from run_store.checkpoints.folder_names import checkpoint_name, list_checkpoints, step_of
    from run_store.checkpoints.format import read_header
    from run_store.checkpoints.retention import best
    from transloom.cli.checkpoints import average_run
    from transloom.inference.chosen_checkpoint import find_checkpoint

    kind, colon, count = name.partition(":")
    if colon:
        if kind not in ("last", "best") or not count.isdecimal() or int(count) < 1:
            raise CheckpointError(
                f"{name!r} names no checkpoints: use last:5 for the average of the last five "
                "checkpoints, or best:3 for the average of the three best ones"
            )
        if int(count) == 1:
            return _found(run, {"last": "newest"}.get(kind, kind))
        number = int(count)
        of_last, of_best = (number, None) if kind == "last" else (None, number)
        return average_run(run.path, of_last, of_best, None).path.name
    if name == "newest":
        return checkpoint_name(find_checkpoint(run, None)[0].path)
    if name == "best":
        paths = list_checkpoints(run.checkpoints)
        metric = checkpoints_of_run(run).best_by
        ranking = best({path: read_header(path) for path in paths}, metric)
        if not ranking:
            raise CheckpointError(
                f"{run.path} has no best checkpoint: none of its checkpoints "
                f"({join_items(map(step_of, paths))}) has a validation score {metric}. Name a "
                "checkpoint by its step"
            )
        return str(step_of(ranking[0]))
    return name


def _table(tuned: "TunedDecoding") -> AnswerTable:
    """Return a table with a row for each checkpoint and beam size."""
    penalties = list(dict.fromkeys(point.length_penalty for point in tuned.points))
    table = AnswerTable(
        Column("checkpoint", copied=True), "beam", *(f"α {alpha:g}" for alpha in penalties)
    )
    rows: dict[tuple[str, int], list[str]] = {}
    for point in tuned.points:
        mark = "≈" if point.as_good_as_best else ""
        if point == tuned.best:
            mark = "best"
        if point == tuned.recommended:
            mark = "←"
        row = rows.setdefault((point.checkpoint, point.beam_size), [])
        row.append(f"{point.score:.2f} {mark}".strip())
    for (checkpoint, beam_size), cells in rows.items():
        table.add(checkpoint, str(beam_size), *cells)
    return table


def _advice(run: Path, tuned: "TunedDecoding", file: str) -> list[str]:
    from run_store.checkpoints.folder_names import checkpoint_name
    from transloom.inference.evaluation import MOSES_BLEU
    from transloom.inference.tuned_decoding import VALIDATION

    metrics = {"bleu": "BLEU", "chrf": "chrF", "bleu_literature": MOSES_BLEU}
    best_one, chosen = tuned.best, tuned.recommended
    as_good = sum(point.as_good_as_best for point in tuned.points)
    lines = [
        f"{metrics[tuned.metric]} on {VALIDATION}, {counted(tuned.sentences, 'sentence')} "
        f"({tuned.signature}).",
        f"Best: {best_one.score:.2f} with {_search(best_one)} of {best_one.checkpoint}. "
        f"{as_good} of {counted(len(tuned.points), 'combination')} (≈) do not differ significantly "
        f"from the best one (paired bootstrap, p ≥ {tuned.noise_p:g}).",
        f"Recommended (←), the smallest beam among these with the α nearest to the recipe's α: "
        f"{chosen.score:.2f} with {_search(chosen)} of {chosen.checkpoint} (p = {chosen.p:.3f}).",
        f"Ratio of characters in translations and references: best {_ratio(best_one)}, "
        f"recommended {_ratio(chosen)}. The length penalty suits the length of these references; "
        "other references of the same sentences may be shorter or longer.",
    ]
    if tuned.at_the_edge:
        lines.append(
            "The best combination has the largest length penalty that was tried: try larger "
            "ones with --length-penalties"
        )
    from transloom.cli.next_steps import own_command

    return [
        *lines,
        "",
        "Put this into the recipe of runs that start or continue:",
        "",
        "decoding:",
        f"  beam_size: {chosen.beam_size}",
        f"  length_penalty: {chosen.length_penalty:g}",
        "",
        "Translate with the existing weights:",
        "",
        f"{own_command()} translate {shlex.quote(str(run))} "
        f"--checkpoint {checkpoint_name(Path(chosen.checkpoint))} "
        f"--beam-size {chosen.beam_size} --length-penalty {chosen.length_penalty:g}",
        "",
        f"The full result is in {file}",
    ]


def _search(point: "DecodingPoint") -> str:
    return search_label(point.beam_size, point.length_penalty)


def _ratio(point: "DecodingPoint") -> str:
    return "unknown" if point.length_ratio is None else f"{point.length_ratio:.3f}"
