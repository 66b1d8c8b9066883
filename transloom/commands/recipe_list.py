"""`transloom recipes`: the recipes that come with transloom, and what each needs."""

import re
from typing import Any
from urllib.parse import urlsplit

import yaml

from cluster.recipe import RECIPES, Recipe, load_recipe
from data_pipeline.config.corpus import is_remote
from foundation.wording import counted, listed
from transloom.observe.terminal.tables import AnswerTable, Column

# The end of a sentence: "Vaswani et al. 2017" has none.
_FIRST_SENTENCE = re.compile(r".*?[.](?=\s+[A-Z]|$)")


def recipe_rows() -> list[dict[str, Any]]:
    """Name, path, what it trains and what that needs, by name."""
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
        "what that needs",
        caption="transloom train RECIPE [KEY=VALUE]…; one of your own corpus: transloom init",
    )
    for row in rows:
        table.add(row["recipe"], row["trains"], row["needs"])
    return table


def recipe_text(values: dict[str, Any]) -> str:
    """A recipe as YAML."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip("\n")


def needs_of(recipe: Recipe) -> str:
    """Its ranks, where they run, and where its text comes from."""
    config = recipe.cluster
    device = "GPU" if config.gpus_per_rank else "CPU"
    where = "" if config.address is None else " on a Ray cluster"
    return f"{counted(config.max_ranks, f'{device} rank')}{where}; {_text_of(recipe)}"


def _text_of(recipe: Recipe) -> str:
    locations = [place for corpus in recipe.data.train for place in corpus.locations]
    hosts = sorted({str(urlsplit(place).hostname) for place in locations if is_remote(place)})
    if hosts:
        return f"text from {listed(hosts)}"
    if all(place.startswith("builtin:") for place in locations):
        return "no download"
    return "text that you download, as the recipe says"


def _first_sentence(text: str) -> str:
    comment = []
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        comment.append(line.removeprefix("# "))
    found = _FIRST_SENTENCE.match(" ".join(comment))
    return found.group() if found else ""
