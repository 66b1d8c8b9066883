"""Command `transloom generate`: continue texts with a language model."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from cluster.errors import RecipeError
from transloom.cli.options import (
    CheckpointOption,
    JsonOption,
    PrecisionOption,
    RunArgument,
    answer_each,
)

if TYPE_CHECKING:
    from transloom.inference.engine_names import Precision
    from transloom.inference.text_generator import TextGenerator


def generate(
    run: RunArgument,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...",
            help="Beginnings of the texts to continue. Default: the lines of standard input.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of tokens of a continuation. Default: decoding.max_new_tokens of "
            "the run's recipe.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Sampling temperature; 0 always takes the most likely token. Default: "
            "decoding.temperature of the run's recipe.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Sample only from this number of most likely tokens; 0 means all tokens. "
            "Default: decoding.top_k of the run's recipe.",
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Sample only from the smallest set of tokens with this total probability. "
            "Default: decoding.top_p of the run's recipe.",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="Text that ends a continuation; repeat the option for several texts. Default: "
            "decoding.stop of the run's recipe."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Random seed of the sampling. Default: decoding.seed of the run's recipe."
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    precision: PrecisionOption = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Continue texts with a language model.

    The same prompt and seed always give the same text, whatever other prompts the call has.

    Examples:

      transloom generate runs/shakespeare-char "ROMEO:" --temperature 0.8 --top-k 40

      transloom generate runs/shakespeare-char "To be" --temperature 0 --stop "." --json
    """
    changed = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop": tuple(stop) if stop else None,
    }
    generator = load_generator(run, checkpoint, precision, changed)
    found = generator.generate(prompts_of(prompts or []))
    answer_each(found, as_json, lambda generated: generated.prompt + generated.text)


def load_generator(
    run: Path, checkpoint: str | None, precision: "Precision", changed: dict[str, Any]
) -> "TextGenerator":
    """Load a run's text generator, and warn about newer checkpoints that were skipped.

    Args:
        changed: new values of settings in the recipe's section `decoding`; None keeps the recipe's
            value.
    """
    from model.config.decoder_only import SamplingConfig
    from transloom.cli.load_translator import load_reader
    from transloom.inference.text_generator import TextGenerator

    generator = load_reader(TextGenerator, run, checkpoint, precision)
    given = {name: value for name, value in changed.items() if value is not None}
    try:
        generator.sampling = SamplingConfig.model_validate(generator.sampling.model_dump() | given)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"]))
        raise RecipeError(f"{name} is {wrong['input']}: {wrong['msg']}") from error
    return generator


def prompts_of(arguments: Sequence[str]) -> list[str]:
    """Return the prompts of a command line, or the lines of standard input if it has none.

    If standard input is a terminal or is empty, the only prompt is the empty text.

    Raises:
        CorpusError: a prompt is not UTF-8, or a line is too long.
    """
    from transloom.inference.text_input import read_texts

    if not arguments and sys.stdin is not None and sys.stdin.isatty():
        return [""]
    return read_texts(arguments) or [""]
