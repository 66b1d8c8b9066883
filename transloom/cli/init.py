"""Command `transloom init`: write a recipe for a user's text."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from foundation.wording import counted
from transloom.cli.options import JsonOption, answer


def init(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="Recipe file to write, such as my.yaml.")
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER|FILE]",
            help="Folder with the corpus files, such as train.fr and train.en. It may also have "
            "validation.fr and validation.en, and test sets such as test.fr and test.en. Or a file "
            "with pairs, such as pairs.tsv or pairs.jsonl, whose columns are guessed and printed.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the source sentences, one per line."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the translations of the source sentences, one per line."
        ),
    ] = None,
    validation_source: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the source sentences for validation. Default: the command holds out a "
            "part of the corpus.",
        ),
    ] = None,
    validation_target: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the translations of the validation sentences."
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --init-from: file with texts, instead of pairs. For a language model or a "
            "masked model: one document per line, or JSON lines. For a classifier: TSV with text "
            "and label, JSON lines, or CoNLL.",
        ),
    ] = None,
    validation_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with texts for validation. Default: the recipe holds out a part of the "
            "file of --text.",
        ),
    ] = None,
    source_language: Annotated[
        str | None,
        typer.Option(
            help="Source language. Default: the ending of the source file's name, such as fr."
        ),
    ] = None,
    target_language: Annotated[
        str | None,
        typer.Option(
            help="Target language. Default: the ending of the target file's name, such as en."
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of a model to fine-tune, in Hugging Face's layout, such as `transloom "
            "export` writes: a Marian model, BERT, GPT-2, Llama or sentence encoder.",
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(
            help="With --init-from: tag to prepend to every source sentence, such as >>fra<<. A "
            "model for several target languages needs it."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a recipe for your own text, with settings that suit its size.

    The text is parallel, unless you fine-tune a model of single texts. Comments in the recipe
    explain its settings. The command asks no questions and overwrites nothing. If you give no
    validation set, the command splits parallel text into training and validation files, in a new
    folder next to the recipe. For single texts, the recipe holds out the end of the file.

    Examples:

      transloom init my.yaml --source corpus.fr --target corpus.en

      transloom init my.yaml corpora/fr-en

      transloom init my.yaml pairs.tsv --source-language fr --target-language en

      transloom init my.yaml corpora/fr-en --init-from opus-mt-fr-en

      transloom init my.yaml --text letters.txt --init-from exported-gpt2
    """
    from transloom.cli.corpus_files import Files, TextFiles, files_in, files_named
    from transloom.cli.new_recipe import write_recipe
    from transloom.cli.pair_file import PairFile, is_pair_file, pair_file

    languages = source_language, target_language
    if (validation_source is None) != (validation_target is None):
        raise typer.BadParameter(
            "only one of --validation-source and --validation-target is given: give both, or "
            "neither"
        )
    if source is not None and source == target and is_pair_file(source):
        folder, source, target = source, None, None
    files: Files | TextFiles | PairFile
    pairs = (source, target, validation_source, *languages)
    if text is not None and folder is None and not any(pairs):
        if init_from is None:
            raise typer.BadParameter(
                "--text is given without --init-from: name the folder of the model to fine-tune "
                "with --init-from, or name pairs with --source and --target"
            )
        files = TextFiles(text, validation_text)
    elif text is not None or validation_text is not None:
        raise typer.BadParameter(
            "--text and --validation-text are given with other options of a corpus: name texts "
            "with --text FILE, or pairs with a FOLDER, or --source FILE and --target FILE"
        )
    elif folder is not None and source is None and target is None and validation_source is None:
        is_file = is_pair_file(folder) and not folder.is_dir()
        files = pair_file(folder, languages) if is_file else files_in(folder, languages)
    elif folder is None and source is not None and target is not None:
        validation = None
        if validation_source is not None and validation_target is not None:
            validation = (validation_source, validation_target)
        files = files_named(source, target, validation, languages)
    else:
        raise typer.BadParameter(
            "the corpus is not clear: name a FOLDER, or --source FILE and --target FILE, or, for a "
            "model of texts, --text FILE and --init-from FOLDER"
        )
    if tag is not None and init_from is None:
        raise typer.BadParameter(
            "--tag is given without --init-from: name the folder of the model with "
            "--init-from, or leave out --tag"
        )
    summary = write_recipe(recipe, files, init_from, tag)
    answer(summary, as_json, _where_next(summary))


def _where_next(summary: dict[str, Any]) -> str:
    from transloom.cli.next_steps import own_command

    this, recipe = own_command(), shlex.quote(summary["recipe"])
    notes = "".join(f"\n{note}" for note in summary["notes"])
    held = f", {summary['held_out']:,} held out" if summary["held_out"] else ""
    examples = counted(summary["pairs"], summary["noun"])
    return (
        f"{examples}{held}: settings for a {summary['scale']} corpus, "
        f"{counted(summary['steps'], 'step')}{notes}"
        f"\nWrote {', '.join(summary['written'])}. Next:\n\n"
        f"  {this} prepare {recipe}\n  {this} plan {recipe}\n  {this} train {recipe}"
    )
