"""Runs of a sweep: all combinations of the values that are given for fields of a recipe.

seed=1,2 model.dropout=0.1,0.3 trainer.max_steps=500
  ──each value read as YAML, separated by commas──▶ 2 × 2 runs, all of 500 steps
  ──named as `transloom train` names them──▶ runs/RECIPE,seed=2,model.dropout=0.3
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

from cluster.errors import RecipeError
from cluster.recipe import load_recipe, run_name
from foundation.strict_yaml import YamlError, parse_yaml
from foundation.wording import counted
from run_store.folder import RunFolder

MAX_RUNS = 1_000


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep.

    Attributes:
        overrides: all overrides that `transloom train` gets for the run, as KEY=VALUE.
        changed: the values that distinguish the run from the others, by field.
        run: the run's folder on this machine.
        location: the folder, or the URL of a run in an object store.
        max_steps: trainer.max_steps of the run's recipe.
    """

    overrides: tuple[str, ...]
    changed: dict[str, str]
    run: Path
    location: str
    max_steps: int


def sweep_points(recipe: Path, overrides: Sequence[str], folder: Path) -> list[SweepPoint]:
    """Return the runs of a sweep, in an order in which the values of the last field change fastest.

    Args:
        overrides: fields with their values, as KEY=VALUE or KEY=VALUE,VALUE,….
        folder: parent folder of the runs, or a URL.

    Raises:
        RecipeError: the recipe is invalid with some of the values, two runs would be the same, or
            there is only one run.
    """
    axes = [_axis(override) for override in overrides]
    count = prod(len(texts) for _, texts in axes)
    if not 1 < count <= MAX_RUNS:
        raise RecipeError(
            f"The values of this sweep make {counted(count, 'run')}, expected 2 to {MAX_RUNS:,}: "
            "give several values for a field, such as seed=1,2,3; use `transloom train` for one run"
        )
    points: dict[str, SweepPoint] = {}
    for values in product(*(texts for _, texts in axes)):
        chosen = [(key, text) for (key, _), text in zip(axes, values, strict=True)]
        given = tuple(f"{key}={text}" for key, text in chosen)
        name = run_name(recipe, given)
        changed = {
            key: text for (key, text), (_, all_) in zip(chosen, axes, strict=True) if len(all_) > 1
        }
        if name in points:
            raise RecipeError(
                f"{_values_text(points[name].changed)} and {_values_text(changed)} would be the "
                f"same run, {name}, because only identity fields distinguish runs (`transloom "
                "fields` shows the change class of each field). Give each value once, and give "
                "only one value for a field that is not an identity field"
            )
        steps = load_recipe(recipe, given).trainer.max_steps
        run = RunFolder.of(folder / name)
        points[name] = SweepPoint(given, changed, run.path, run.location, steps)
    return list(points.values())


def _axis(override: str) -> tuple[str, list[str]]:
    """Return the name of a field and the texts of its values."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(
            f"{override!r} is not of the form KEY=VALUE,VALUE,…, expected for example seed=1,2,3"
        )
    try:
        values = parse_yaml(f"[{text}]")
    except YamlError as error:
        raise RecipeError(f"{override[:200]!r} has no valid list of values: {error}") from error
    if not isinstance(values, list) or not values:
        raise RecipeError(f"{override[:200]!r} has no value: give values, such as seed=1,2,3")
    if len(values) == 1:
        return key, [text]
    try:
        # JSON is valid YAML, and YAML reads it as the same value in any context.
        return key, [json.dumps(value, ensure_ascii=False) for value in values]
    except TypeError as error:
        raise RecipeError(
            f"{override[:200]!r} has a value that no field accepts ({error}): put quotation "
            "marks around texts that look like dates"
        ) from error


def _values_text(changed: dict[str, str]) -> str:
    return " ".join(f"{key}={text}" for key, text in changed.items())
