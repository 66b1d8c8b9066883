"""Commands for language models: `generate` and `import`; and `export`, also for translation."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.terminal import hand_over
from foundation.wording import counted
from transloom.cli.options import (
    CheckpointOption,
    JsonOption,
    Overrides,
    PrecisionOption,
    RunArgument,
    answer,
)
from transloom.commands.export_targets import Target
from transloom.inference.engine_names import ComputeType


def generate(
    run: RunArgument,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...", help="What each text begins with. Default: lines of stdin."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a continuation. Default: the recipe's.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 takes the likeliest token each time.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="Draw from so many likeliest tokens; 0: from all.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Draw from the fewest tokens with this probability."),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends a continuation. May be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed is another text.")] = None,
    checkpoint: CheckpointOption = None,
    precision: PrecisionOption = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Continue texts with a language model's weights.

    The same seed gives the same texts, whatever other prompts are given with one.

    Examples:

      transloom generate runs/shakespeare-char "ROMEO:" --temperature 0.8 --top-k 40

      transloom generate runs/shakespeare-char "To be" --temperature 0 --stop "." --json
    """
    from transloom.commands.generate import generated_lines, load_generator, prompts_of

    changed = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop": tuple(stop) if stop else None,
    }
    generator = load_generator(run, checkpoint, precision, changed)
    for line in generated_lines(generator, prompts_of(prompts or []), as_json=as_json):
        hand_over(line)


def export(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    to: Annotated[Target, typer.Option(help="For which library.")] = Target.HUGGINGFACE,
    checkpoint: CheckpointOption = None,
    quantization: Annotated[
        ComputeType | None,
        typer.Option(help="For ctranslate2: store rounded weights. Default: as they are, in fp32."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's model and tokenizers for another library.

    For Hugging Face's `from_pretrained`, a translation model becomes a MarianMT and a language
    model a GPT-2 or Llama; CTranslate2 takes translation models. What a library cannot hold is
    refused by name.

    Examples:

      transloom export runs/multi30k-ende exported

      transloom export runs/multi30k-ende exported --to ctranslate2 --quantization int8

      transloom export runs/shakespeare-char exported --to huggingface --checkpoint 2000
    """
    from transloom.commands.exporting import export_run

    summary = export_run(run, folder, checkpoint, to, quantization)
    answer(summary, as_json, f"{summary['folder']}: {summary['model']}, {summary['files']}")


def import_weights(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="With config.json and safetensors.")
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A new run's folder.")],
    overrides: Overrides = None,
    *,
    recipe: Annotated[
        str, typer.Option(help="A recipe of that network, whose dataset has its tokenizer.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a run of a GPT-2 or Llama of Hugging Face, to use it or to start others from it.

    Its training cannot go on: there is no state of an optimizer. Another run starts from its
    weights with trainer.init_from=RUN.

    Example:  transloom import SmolLM-135M runs/smol --recipe smol.yaml
    """
    from transloom.commands.importing import import_run

    summary = import_run(folder, run, recipe, overrides or ())
    answer(
        summary,
        as_json,
        f"{summary['run']}: {summary['model']}, {counted(summary['parameters'], 'weight')}",
    )
