"""Settings of a run: `recipe.yaml` by dotted key, read quickly and within limits.

`foundation.strict_yaml` reads recipes of users, with a message for each mistake. That takes 80 ms
per recipe. This module reads the recipes that `RunFolder.open` wrote, for hundreds of runs at once.
It uses libyaml if PyYAML includes it.
"""

from pathlib import Path
from typing import Any

import yaml

from data_pipeline.storage.regular_files import read_regular

MAX_BYTES = 500_000
MAX_EVENTS = 50_000
MAX_DEPTH = 32
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def settings_of(recipe: Path) -> dict[str, Any]:
    """Return the values in a recipe by dotted key, as JSON values; empty if there is no file.

    Raises:
        OSError: the file exists and cannot be read.
        ValueError: the file is not a recipe that a run wrote.
    """
    try:
        text = read_regular(recipe, MAX_BYTES).decode()
        _check(text)
        values = _Loader(text).get_single_data()
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {str(error)[:200]}") from error
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, expected a table")
    return flat_settings(values)


def flat_settings(values: dict[Any, Any]) -> dict[str, Any]:
    """Return the values in nested tables by dotted key, as JSON values."""
    found: dict[str, Any] = {}
    _flatten(values, "", found)
    return found


def _check(text: str) -> None:
    """Check that a text has no aliases, and neither too many values nor too deep nesting."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, _Loader)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has a YAML alias, which the recipe of a run never has")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or number > MAX_EVENTS:
            raise ValueError(
                f"it has more than {MAX_EVENTS:,} values, or some nested deeper than {MAX_DEPTH}"
            )


def _flatten(values: dict[Any, Any], prefix: str, found: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            _flatten(value, f"{prefix}{key}.", found)
        else:
            found[f"{prefix}{key}"] = _json(value)


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # replace lone surrogates
    if isinstance(value, float) and abs(value) <= 1.7e308:
        return value
    return str(value)  # for example, a date or an infinite number
