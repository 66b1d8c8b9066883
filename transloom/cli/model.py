"""Command `transloom model show`: show the network of a recipe or a run as a table, JSON or SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import RecipeError
from foundation.errors import DataError
from foundation.terminal import note
from run_store.remote.local_copy import local_copy
from transloom.cli.completion import runs_and_recipes
from transloom.cli.options import JsonOption, Overrides, answer
from transloom.observe.terminal.tables import AnswerTable

if TYPE_CHECKING:
    from transloom.observe.explain.blueprint.boxes import Blueprint, Box, FigureColumn

model_app = typer.Typer(
    no_args_is_help=True, help="Show the parts of a model, with their shapes and parameters."
)


@model_app.callback()
def _group() -> None:
    """Keep `model` a group.

    Without a callback, Typer would turn a group with a single command into that command.
    """


@model_app.command("show")
def show(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RUN|RECIPE",
            help="A run's folder, a recipe file, or the name of a built-in recipe.",
            autocompletion=runs_and_recipes,
        ),
    ],
    overrides: Overrides = None,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a figure of the model to this SVG file."),
    ] = None,
    each_layer: Annotated[
        bool,
        typer.Option(
            "--each-layer",
            help="Show every layer separately, instead of one layer that is marked N ×.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the parts of a model, with their shapes and parameters.

    The command needs neither a prepared dataset nor a trained run. The figure of --svg opens in any
    browser, in light and dark mode, and screen readers can read its boxes.

    Examples:

      transloom model show vaswani-base

      transloom model show phrasebook model.norm=pre --svg phrasebook.svg

      transloom model show runs/phrasebook --each-layer --json
    """
    blueprint, is_prepared = figure_of(recipe, overrides or [])
    if not is_prepared:
        note(
            "the dataset is not prepared here, so the figure has the vocabulary size of the recipe"
        )
    if svg is not None:
        from transloom.observe.explain.blueprint.drawing import svg_file

        svg.parent.mkdir(parents=True, exist_ok=True)
        svg.write_text(svg_file(blueprint, each_layer=each_layer), encoding="utf-8")
        note(f"wrote {svg}")
    summary = summary_of(blueprint, svg, is_prepared=is_prepared)
    answer(summary, as_json, figure_table(blueprint, each_layer=each_layer))


def figure_of(name: str, overrides: Sequence[str]) -> "tuple[Blueprint, bool]":
    """Return the figure of a run by its folder, or of a recipe by its file or name.

    Returns:
        The figure, and whether its vocabulary sizes come from the dataset or from the recipe.

    Raises:
        RecipeError: no run or recipe has this name, the recipe is invalid, or overrides are given
            for a run.
        RunMismatchError: the network belongs to an extension.
    """
    from cluster.recipe import find_recipe, load_recipe, load_run_recipe
    from run_store.folder import RunFolder
    from transloom.observe.explain.blueprint.networks import Sizes, blueprint_of_settings

    run = RunFolder(local_copy(name))
    if run.card_path.is_file():
        if overrides:
            raise RecipeError(
                f"{name} is a run, whose model is fixed, but the override {overrides[0]} is given: "
                "leave out the override, or name a recipe"
            )
        recipe, dataset = load_run_recipe(run), str(run.dataset)
    else:
        recipe = load_recipe(find_recipe(name), overrides)
        dataset = recipe.data.dataset
    prepared = _vocabulary_sizes(dataset)
    vocabularies = prepared or [recipe.tokenizer.vocabulary_size]
    context_length = getattr(recipe.batching, "context_length", 0)
    labels = len(getattr(recipe.data, "labels", ()))
    sizes = Sizes(vocabularies[0], vocabularies[-1], context_length, labels)
    return blueprint_of_settings(recipe.model, sizes), bool(prepared)


def _vocabulary_sizes(dataset: str) -> list[int]:
    """Return the vocabulary size of each field of a dataset; [] if it is not prepared yet."""
    from data_pipeline.dataset.manifest import Manifest
    from data_pipeline.storage.store import open_store

    try:
        manifest = Manifest.load(open_store(dataset, retry_delays_seconds=()))
    except DataError:
        return []
    return [manifest.tokenizers[field.name].vocabulary_size for field in manifest.fields]


def summary_of(figure: "Blueprint", svg: Path | None, *, is_prepared: bool) -> dict[str, Any]:
    """Return a JSON object with every box of every layer and its parameters by name and shape."""
    counts = {box.key: box.parameters for box in figure.boxes()}
    return {
        "blueprint": figure.model_dump(mode="json"),
        "parameters_by_box": counts,
        "vocabulary_from": "dataset" if is_prepared else "recipe",
        "svg": None if svg is None else str(svg),
    }


def figure_table(figure: "Blueprint", *, each_layer: bool) -> AnswerTable:
    """Return a table with a row for each box, from the input upwards, and a row for the total."""
    table = AnswerTable("part", "box", "what it does", "parameters")
    for column in figure.columns:
        name = column.name.lower()
        _add(table, name, column.before)
        for where, times, boxes in _layers(column, each_layer):
            _add(table, where, boxes, times)
        _add(table, name, column.after)
    table.add("", "all", "", f"{figure.parameters:,}")
    return table


def _layers(column: "FigureColumn", each_layer: bool) -> "list[tuple[str, int, Sequence[Box]]]":
    """Return, for each row group: first column's text, number of equal layers, a layer's boxes."""
    name = f"{column.name.lower()} layer"
    if each_layer:
        return [(f"{name} {layer.number}", 1, layer.boxes) for layer in column.layers]
    times = len(column.layers)
    return [(f"{times} × {name}" if times > 1 else name, times, column.layers[0].boxes)]


def _add(table: AnswerTable, where: str, boxes: "Sequence[Box]", times: int = 1) -> None:
    for box in boxes:
        own = f"{box.parameters:,}" if box.parameters or box.same_as else ""
        if times > 1 and box.parameters:
            own = f"{times} × {own} = {times * box.parameters:,}"
        what = [line for line in box.lines if not line.endswith("parameters")]
        table.add(where, box.title, "; ".join(what), own)
