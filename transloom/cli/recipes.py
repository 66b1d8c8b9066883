"""Command `transloom recipes`: list the built-in recipes, or show one."""

import re
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from foundation.wording import counted, join_items
from transloom.cli.completion import recipe_names
from transloom.cli.options import JsonOption, Overrides, answer
from transloom.observe.terminal.tables import AnswerTable, Column

if TYPE_CHECKING:
    from cluster.recipe import Recipe

# Matches a text up to the end of its first sentence. The period in "Vaswani et al. 2017" does not
# end a sentence.
_FIRST_SENTENCE = re.compile(r".*?[.](?=\s+[A-Z]|$)")


def recipes(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="Recipe to show: a file, or the name of a built-in recipe. Default: list all "
            "built-in recipes.",
            autocompletion=recipe_names,
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: JsonOption = False,
) -> None:
    """List the built-in recipes, or show one recipe with its defaults filled in.

    Examples:

      transloom recipes

      transloom recipes phrasebook trainer.max_steps=100
    """
    from cluster.recipe import find_recipe, load_recipe
    from foundation.strict_yaml import dump_yaml

    if recipe is None:
        rows = recipe_rows()
        answer(rows, as_json, recipes_table(rows))
        return
    values = load_recipe(find_recipe(recipe), overrides or ()).model_dump(mode="json")
    answer(values, as_json, dump_yaml(values).rstrip("\n"))


def recipe_rows() -> list[dict[str, Any]]:
    """Return the name, path, purpose and requirements of each built-in recipe, sorted by name."""
    from cluster.recipe import RECIPES, load_recipe

    rows = []
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = load_recipe(path)
        rows.append(
            {
                "recipe": path.stem,
                "path": str(path),
                "trains": _first_sentence(path.read_text(encoding="utf-8")),
                "needs": needs_of(recipe),
            }
        )
    return rows


def recipes_table(rows: list[dict[str, Any]]) -> AnswerTable:
    table = AnswerTable(
        Column("recipe", copied=True),
        "what it trains",
        "what it needs",
        caption="To train one of them: transloom train RECIPE [KEY=VALUE]…. To train on your own "
        "corpus: transloom init",
    )
    for row in rows:
        table.add(row["recipe"], row["trains"], row["needs"])
    return table


def needs_of(recipe: "Recipe") -> str:
    """Return a description of a recipe's ranks, their devices, and the origin of its text."""
    config = recipe.cluster
    device = "GPU" if config.gpus_per_rank else "CPU"
    where = "" if config.address is None else " on a Ray cluster"
    return f"{counted(config.max_ranks, f'{device} rank')}{where}; {_text_of(recipe)}"


def _text_of(recipe: "Recipe") -> str:
    from data_pipeline.config.corpus import is_remote

    locations = [place for corpus in recipe.data.train for place in corpus.locations]
    hosts = sorted({str(urlsplit(place).hostname) for place in locations if is_remote(place)})
    if hosts:
        return f"text from {join_items(hosts)}"
    if all(place.startswith("builtin:") for place in locations):
        return "no download"
    return "text that you must download first (see the recipe)"


def _first_sentence(text: str) -> str:
    comment = takewhile(lambda line: line.startswith("# "), text.splitlines())
    found = _FIRST_SENTENCE.match(" ".join(line.removeprefix("# ") for line in comment))
    return found.group() if found else ""
