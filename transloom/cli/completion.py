"""Shell completion of recipe names, keys of overrides, tasks and run folders.

The user waits for a completion after each press of the tab key, so this module imports nothing
heavy. It runs no code of extensions. An error yields no completions, because a message would spoil
the command line that the user is typing.
"""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import typer

from foundation.section import change_class
from foundation.tasks import DEFAULT_TASK, TASKS

Complete = Callable[[typer.Context, str], list[str]]
# Values that need no quoting in any shell.
_PLAIN = re.compile(r"[\w.+:/-]+")


def _quietly(complete: Callable[[typer.Context, str], Iterable[str]]) -> Complete:
    @wraps(complete)
    def quiet(ctx: typer.Context, incomplete: str) -> list[str]:
        with suppress(Exception):  # a message would spoil the command line that the user is typing
            found = dict.fromkeys(complete(ctx, incomplete))
            return [one for one in found if one.startswith(incomplete)]
        return []

    return quiet


@_quietly
def recipe_names(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Yield the built-in recipes, and the YAML files in the directory of the path being typed."""
    from cluster.recipe import RECIPES

    yield from sorted(path.stem for path in RECIPES.glob("*.yaml"))
    yield from (str(path) for path in _siblings(incomplete) if path.suffix in (".yaml", ".yml"))


@_quietly
def runs_and_recipes(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Yield completions for a command that takes a run or a recipe."""
    yield from recipe_names(ctx, incomplete)
    yield from run_folders(ctx, incomplete)


@_quietly
def override_keys(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Yield KEY=VALUE for each field of the recipe, or KEY= if the value would need quotes."""
    from cluster.recipe import Recipe, find_recipe, load_recipe, walk_fields
    from foundation.strict_yaml import parse_yaml
    from trainer.recipe import leaves, recipe_class

    named = str(ctx.params.get("recipe"))
    values: Any = None
    with suppress(Exception):  # the command itself reports what is wrong with the recipe
        values = parse_yaml(find_recipe(named).read_text(encoding="utf-8"))
    values = values if isinstance(values, dict) else {}
    task = str(values.get("task", DEFAULT_TASK))
    if values.get("extensions"):  # the code of extensions must not run here
        yield from (f"{name}=" for name, field in walk_fields(Recipe) if change_class(field))
        return
    found: dict[str, Any] = {
        name: field.default
        for name, field in walk_fields(recipe_class(Recipe, task))
        if change_class(field)
    }
    with suppress(Exception):  # the recipe may be incomplete
        recipe = load_recipe(find_recipe(named))
        found |= {name: value for name, value, _ in leaves(recipe)}
    for name, value in found.items():
        shown = _shown(value)
        yield f"{name}={shown if _PLAIN.fullmatch(shown) else ''}"


@_quietly
def task_names(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Yield the names of the tasks."""
    yield from TASKS


@_quietly
def run_folders(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Yield the runs in runs/, and the runs in the directory of the path being typed."""
    for path in (*sorted(Path("runs").glob("*")), *_siblings(incomplete)):
        if (path / "run.json").is_file():
            yield str(path)


def _siblings(incomplete: str) -> list[Path]:
    """Return the entries of the directory in which the user is typing a path."""
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    return sorted(folder.iterdir())


def _shown(value: Any) -> str:
    with suppress(TypeError):
        return json.dumps(value).strip('"')
    return ""
