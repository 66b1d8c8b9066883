"""`transloom generate`: prompts in, continuations out."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.errors import RecipeError
from foundation.strangers_text import visible_in_json
from model.config.decoder_only import SamplingConfig
from transloom.commands.text_readers import load_reader
from transloom.inference.given_text import given_texts
from transloom.inference.text_generator import TextGenerator
from transloom.inference.trained_network import Precision


def load_generator(
    run: Path, checkpoint: str | None, precision: Precision, changed: dict[str, Any]
) -> TextGenerator:
    """Load a run's generator, and name newer checkpoints that were passed over.

    Args:
        changed: settings of `decoding` that differ from the recipe's; None stands for no change.
    """
    generator = load_reader(TextGenerator, run, checkpoint, precision)
    given = {name: value for name, value in changed.items() if value is not None}
    try:
        generator.sampling = SamplingConfig.model_validate(generator.sampling.model_dump() | given)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"]))
        raise RecipeError(f"{name} is {wrong['input']}: {wrong['msg']}") from error
    return generator


def generated_lines(
    generator: TextGenerator, prompts: Sequence[str], *, as_json: bool
) -> Iterator[str]:
    """What is printed for each prompt: it and its continuation, or both in JSON."""
    for found in generator.generate(prompts):
        if as_json:
            yield visible_in_json(json.dumps(asdict(found), ensure_ascii=False))
        else:
            yield found.prompt + found.text


def prompts_of(arguments: Sequence[str]) -> list[str]:
    """The prompts of a command line, or of standard input, one a line.

    Raises:
        CorpusError: a prompt is not UTF-8, or a line is too long.
    """
    if not arguments and sys.stdin is not None and sys.stdin.isatty():
        return [""]
    return given_texts(arguments) or [""]
