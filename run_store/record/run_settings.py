"""Settings of a run by dotted key, as JSON values."""

from pathlib import Path
from typing import Any

from data_pipeline.storage.regular_files import read_regular
from foundation.strict_yaml import MAX_BYTES, YamlError, parse_yaml


def settings_of(recipe: Path) -> dict[str, Any]:
    """Return the settings in a recipe that a run wrote; empty if there is no file.

    Raises:
        OSError: the file exists and cannot be read.
        ValueError: the file is not a recipe.
    """
    try:
        values = parse_yaml(read_regular(recipe, MAX_BYTES).decode())
    except FileNotFoundError:
        return {}
    except YamlError as error:
        raise ValueError(str(error)) from error
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, expected a table")
    return flat_settings(values)


def flat_settings(values: dict[Any, Any]) -> dict[str, Any]:
    """Return the values in nested tables by dotted key."""
    found: dict[str, Any] = {}
    _flatten(values, "", found)
    return found


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
