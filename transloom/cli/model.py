"""`transloom model`: the network of a recipe or a run."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.terminal import note
from transloom.cli.completion import runs_and_recipes
from transloom.cli.options import JsonOption, Overrides, answer

model_app = typer.Typer(no_args_is_help=True, help="Look at a model's form: shapes, parameters.")


@model_app.callback()
def _group() -> None:
    """Without it Typer would make one command of a group that has one."""


@model_app.command("show")
def show(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RUN|RECIPE",
            help="A run's folder, a recipe file, or the name of a built-in one.",
            autocompletion=runs_and_recipes,
        ),
    ],
    overrides: Overrides = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the figure into this file.")
    ] = None,
    each_layer: Annotated[
        bool,
        typer.Option("--each-layer", help="Every layer by itself, instead of one and N ×."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a model is made of: boxes, shapes, and parameters, which add up.

    Of a recipe nothing need be prepared or trained. The figure opens in any browser, in light and
    dark; its boxes are read by screen readers, too.

    Examples:

      transloom model show vaswani-base

      transloom model show phrasebook model.norm=pre --svg phrasebook.svg

      transloom model show runs/phrasebook --each-layer --json
    """
    from transloom.commands.model_figure import figure_of, figure_table, summary_of, write_svg

    found = figure_of(recipe, overrides or [])
    if not found.prepared:
        note("the vocabulary is as large as the recipe asks: its dataset is not prepared here")
    if svg is not None:
        write_svg(found, svg, each_layer=each_layer)
        note(f"drawn: {svg}")
    answer(summary_of(found, svg), as_json, figure_table(found, each_layer=each_layer))
