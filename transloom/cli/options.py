"""Arguments and options that several commands share, and the output of a command's result."""

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cluster.errors import EXIT_FAILED
from foundation.terminal import Terminal, print_json_line, print_line, print_result
from foundation.untrusted_text import visible_in_json
from model.config.transformer import MAX_BEAM_SIZE, MAX_LENGTH_PENALTY
from transloom.cli.completion import override_keys, recipe_names, run_folders
from transloom.cli.run_urls import local_run, local_run_names, local_runs, run_location
from transloom.inference.engine_names import ComputeType, Engine
from transloom.observe.terminal.tables import AnswerTable

WIDTH_WHEN_PIPED = 200


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a built-in recipe.",
        autocompletion=recipe_names,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Overrides of recipe fields, such as trainer.max_steps=100.",
        autocompletion=override_keys,
    ),
]
_run_argument = partial(
    typer.Argument,
    metavar="RUN",
    help="A run's folder, or its URL in an object store.",
    autocompletion=run_folders,
)
RunArgument = Annotated[Path, _run_argument(callback=local_run)]
# Argument for the run of a command that changes the run but does not read it.
RunLocationArgument = Annotated[Path, _run_argument()]
# Arguments for several runs. Each command adds a help text.
runs_argument = partial(
    typer.Argument, metavar="RUN...", callback=local_runs, autocompletion=run_folders
)
# Like `runs_argument`, but RUN@CHECKPOINT is allowed, too.
run_names_argument = partial(typer.Argument, callback=local_run_names, autocompletion=run_folders)
# Option for a recipe's run. Commands that train elsewhere add its default or required storage to
# the help text.
RunOption = Annotated[
    Path | None,
    typer.Option(
        callback=run_location,
        help="The run's folder. Default: a folder in runs/, named after the recipe and its "
        "overrides.",
    ),
]
SharedRunOption = Annotated[
    Path | None,
    typer.Option(
        callback=run_location,
        help="The run's folder, on storage that all nodes share, or its URL "
        "(s3://BUCKET/PREFIX/NAME).",
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        help="Address of a running Ray cluster: HOST:PORT, or auto to detect it. Default: that of "
        "the recipe, or else Ray is started on this machine.",
    ),
]
TextsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT]...",
        help="Texts to read. Default: the lines of --input, or of standard input.",
    ),
]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input", metavar="FILE", help="File with one text per line; - is standard input."
    ),
]
DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="Folder or URL of a prepared dataset.")
]
MovedDatasetOption = Annotated[
    str | None,
    typer.Option(help="Folder or URL of the dataset, if it has moved since training."),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of worker processes. Default: one per CPU core, or a single one if there "
        "is little work.",
    ),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="STEP|AVERAGE",
        help="Checkpoint to use: a step, or the name of an average (average-of-…). Default: "
        "the newest checkpoint.",
    ),
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(
        help="Precision of the computation. bf16 halves the memory and, on recent CPUs, the time."
    ),
]
EngineOption = Annotated[
    Engine,
    typer.Option(
        help="Inference engine: torch, which is transloom's beam search, or ctranslate2, "
        "which is faster on CPUs. ctranslate2 needs 'transloom\\[ctranslate2]'. It "
        "converts each checkpoint once, and keeps the result in the run's folder."
    ),
]
ComputeTypeOption = Annotated[
    ComputeType | None,
    typer.Option(
        help="Data type in which CTranslate2 multiplies matrices; int8 is the fastest. "
        "Default: float32."
    ),
]
TagOption = Annotated[
    str | None,
    typer.Option(
        help="Tag to prepend to every source sentence, such as <2de>. Use a tag of the run's "
        "training corpora.",
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Maximum number of tokens of a sentence, tag and EOS included. Default: "
        "data.max_source_length of the run's recipe. Memory grows with the square of this number.",
    ),
]
BeamOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_BEAM_SIZE,
        help="Number of hypotheses in the beam search. Default: decoding.beam_size of the "
        "run's recipe.",
    ),
]


def _finite(number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is not finite: give a number such as 0.6")
    return number


PenaltyOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=MAX_LENGTH_PENALTY,
        callback=_finite,
        help="Exponent of the length penalty; larger values favour longer translations. "
        "Default: decoding.length_penalty of the run's recipe.",
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Fail, instead of printing a warning, if other users can reach the cluster.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, for scripts.")]


def require_one_input(texts: list[str] | None, file: str | None) -> None:
    """Check that a command line has no texts if it names a file of texts."""
    if texts and file is not None:
        raise typer.BadParameter(f"texts and --input {file} are both given: leave out one of them")


def step_range(text: str) -> tuple[int, int]:
    """Return the first and last step of a range such as 10:20."""
    first, _, last = text.partition(":")
    numbers = [first, last or first]
    if not all(n.isascii() and n.isdecimal() for n in numbers) or text.endswith(":"):
        raise typer.BadParameter(
            f"{text!r} is neither a step, such as 120, nor a range of steps, such as 100:120"
        )
    start, stop = int(numbers[0]), int(numbers[1])
    if not 1 <= start <= stop:
        raise typer.BadParameter(
            f"{text!r} has no steps: steps begin at 1, and a range A:B needs A <= B"
        )
    return start, stop


def answer(value: Any, as_json: bool, readable: Any, *, failed: bool = False) -> None:
    """Print the result of a command on standard output.

    Args:
        value: the result as JSON values, printed if `as_json` is True.
        readable: the result as text or as a Rich object, printed otherwise.
        failed: end the command with exit code 1 after that.
    """
    if as_json:
        print_json_line(value)
    else:
        _print_readable(readable)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _print_readable(readable: Any) -> None:
    console = Terminal()
    piped = not console.is_terminal and "COLUMNS" not in os.environ
    if piped and isinstance(readable, AnswerTable):
        print_line(readable.plain())
        return
    console = Terminal(width=WIDTH_WHEN_PIPED) if piped else console
    console.print(readable, soft_wrap=isinstance(readable, str), crop=False)


def answer_each(results: Iterable[Any], as_json: bool, readable: Callable[[Any], str]) -> None:
    """Print each result of a command as soon as it is known.

    Args:
        results: the results as dataclasses; each is a line of JSON if `as_json` is True.
        readable: returns a result as text, which is printed otherwise.
    """
    for result in results:
        if as_json:
            print_result(visible_in_json(json.dumps(asdict(result), ensure_ascii=False)))
        else:
            print_result(readable(result))
