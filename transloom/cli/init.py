"""`transloom init`: write a recipe of one's own parallel text."""

from pathlib import Path
from typing import Annotated, Any

import typer

from foundation.wording import counted
from transloom.cli.options import JsonOption, answer


def init(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The file to write, my.yaml.")],
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="With train.fr and train.en, say, and so for validation and test….",
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Source sentences, one a line.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Their translations, one a line.")
    ] = None,
    validation_source: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Held-out sentences. Default: some of the corpus's."),
    ] = None,
    validation_target: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Their translations.")
    ] = None,
    source_language: Annotated[
        str | None, typer.Option(help="Default: as the file's name ends.")
    ] = None,
    target_language: Annotated[
        str | None, typer.Option(help="Default: as the file's name ends.")
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A Marian model of Hugging Face to go on from."),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(help="Before every source sentence, such as >>fra<< of that model."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a recipe of your own parallel text, with settings by its size and a word on each.

    It asks nothing and overwrites nothing. Without a validation set it deals the corpus to
    training and validation, in a folder beside the recipe.

    Examples:

      transloom init my.yaml --source corpus.fr --target corpus.en

      transloom init my.yaml corpora/fr-en

      transloom init my.yaml corpora/fr-en --init-from opus-mt-fr-en
    """
    from transloom.cli.new_recipe import files_in, files_named, write_recipe

    languages = source_language, target_language
    if (validation_source is None) != (validation_target is None):
        raise typer.BadParameter("--validation-source and --validation-target belong together")
    if folder is not None and source is None and target is None and validation_source is None:
        files = files_in(folder, languages)
    elif folder is None and source is not None and target is not None:
        validation = None
        if validation_source is not None and validation_target is not None:
            validation = (validation_source, validation_target)
        files = files_named(source, target, validation, languages)
    else:
        raise typer.BadParameter("give either a FOLDER, or --source FILE and --target FILE")
    if tag is not None and init_from is None:
        raise typer.BadParameter("--tag belongs to --init-from")
    summary = write_recipe(recipe, files, init_from, tag)
    answer(summary, as_json, _where_next(summary))


def _where_next(summary: dict[str, Any]) -> str:
    recipe = summary["recipe"]
    held = f", {summary['held_out']:,} held out" if summary["held_out"] else ""
    return (
        f"{summary['pairs']:,} training pairs{held}: {summary['scale']}, "
        f"{counted(summary['steps'], 'step')}"
        f"\nwritten: {', '.join(summary['written'])}\n\n"
        f"  transloom prepare {recipe}\n  transloom plan {recipe}\n  transloom train {recipe}"
    )
