"""What several commands share: arguments, options, and how they answer."""

import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cluster.terminal import Terminal, print_json_line, print_line
from model.config.transformer import MAX_BEAM_SIZE, MAX_LENGTH_PENALTY
from transloom.cli.completion import override_keys, recipe_names, run_folders
from transloom.inference.engine_names import ComputeType, Engine
from transloom.observe.terminal.tables import AnswerTable

WIDTH_WHEN_PIPED = 200

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a built-in one.",
        autocompletion=recipe_names,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Recipe fields to override.",
        autocompletion=override_keys,
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder.", autocompletion=run_folders)
]
RunsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Runs' folders, each RUN or RUN@STEP; several translate together.",
        autocompletion=run_folders,
    ),
]
DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="A prepared dataset: its folder or URL.")
]
MovedDatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", help="The dataset, if it has moved since training."),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="How many work at once. Default: all cores, or one if it is little."),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", metavar="STEP|AVERAGE", help="A step or average-of-…. Default: the newest."
    ),
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(help="bf16 takes half the memory and, on recent processors, half the time."),
]
EngineOption = Annotated[
    Engine,
    typer.Option(
        help="What searches: transloom itself, or CTranslate2, which is faster on CPUs; install "
        "'transloom[ctranslate2]'. The checkpoint is converted once and kept in the run."
    ),
]
ComputeTypeOption = Annotated[
    ComputeType | None,
    typer.Option(help="What CTranslate2 multiplies in. Default: float32. int8 is fastest."),
]
TagOption = Annotated[
    str | None,
    typer.Option("--tag", help="Put before every sentence, as a corpus's tag in training."),
]
PrefixesOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="What each translation begins with: a line for each sentence, cut between words; "
        "an empty one leaves it free.",
    ),
]
LongLinesOption = Annotated[
    Literal["refuse", "split"],
    typer.Option(
        help="What becomes of lines of more tokens than --max-tokens: refuse all input before "
        "anything is translated, and name them; or split them at sentence ends, else at spaces, "
        "and join the translations with a space: each part is translated without the others, so "
        "context is lost. Line N of the output belongs to line N of the input in any case.",
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Most tokens of a sentence, tag and EOS included. Default: what the run was trained "
        "on, data.max_source_length of its recipe. Memory grows with the square.",
    ),
]
AlignmentsOption = Annotated[
    bool,
    typer.Option(
        "--alignments",
        help="After a tab, which word each word comes from, by attention: 0-0 2-1 … "
        "(source-translation, counted from 0). Pieces are folded to words at SentencePiece's ▁.",
    ),
]
BeamOption = Annotated[
    int | None, typer.Option(min=1, max=MAX_BEAM_SIZE, help="Default: the recipe's.")
]


def _finite(number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is not finite: give a number such as 0.6")
    return number


PenaltyOption = Annotated[
    float | None,
    typer.Option(min=0, max=MAX_LENGTH_PENALTY, callback=_finite, help="Default: the recipe's."),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse a cluster that is open to other people, instead of a warning."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]


def step_range(text: str) -> tuple[int, int]:
    """First and last step of a range such as 10:20."""
    first, _, last = text.partition(":")
    numbers = [first, last or first]
    if not all(n.isascii() and n.isdecimal() for n in numbers) or text.endswith(":"):
        raise typer.BadParameter(
            f"{text!r} is neither a step nor a range of steps, such as 120 or 100:120"
        )
    start, stop = int(numbers[0]), int(numbers[1])
    if not 1 <= start <= stop:
        raise typer.BadParameter(f"{text!r} has no steps: they begin at 1, and A:B needs A <= B")
    return start, stop


def answer(value: Any, as_json: bool, readable: Any) -> None:
    """Print a command's answer on standard output."""
    if as_json:
        print_json_line(value)
        return
    console = Terminal()
    piped = not console.is_terminal and "COLUMNS" not in os.environ
    if piped:
        console = Terminal(width=WIDTH_WHEN_PIPED)
    if isinstance(readable, AnswerTable):
        if piped:
            print_line(readable.plain())
        else:
            console.print(readable, crop=False)
        return
    console.print(readable, soft_wrap=isinstance(readable, str), crop=False)
