"""Settings of a recipe that determine a dataset's bytes, and their comparison."""

import os
from typing import Any

from data_pipeline.config.corpus import is_remote
from data_pipeline.config.data import DataSettings
from foundation.location import Location, strip_credentials
from foundation.section import Section, decides_bytes
from foundation.tasks import DEFAULT_TASK


def preparation_settings(settings: DataSettings) -> dict[str, Any]:
    """Return the settings that determine a dataset's bytes, except those with their default value.

    A dataset therefore still matches its recipe after a later version has added a setting. For the
    same reason, the defaults of these settings must never change.
    """
    found = {
        "data": _bytes_settings(settings.data),
        "tokenizer": _bytes_settings(settings.tokenizer),
    }
    return found if settings.task == DEFAULT_TASK else {"task": settings.task, **found}


def _bytes_settings(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_bytes_settings(item) for item in value]
    if isinstance(value, dict):
        return {name: _bytes_settings(item) for name, item in value.items()}
    if not isinstance(value, Section):
        return value
    settings = {}
    for name, field in type(value).model_fields.items():
        inner = getattr(value, name)
        if inner == field.default:
            continue
        if decides_bytes(field):
            settings[name] = _bytes_settings(inner)
        elif isinstance(inner, Section) and (group := _bytes_settings(inner)):
            settings[name] = group
    return settings


def differences(dataset: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """Return a description of each setting that differs, with both values."""
    mine, theirs = _flatten(strip_credentials(dataset)), _flatten(recipe)
    return [
        f"{name}: {mine.get(name, 'not set')!r} in the dataset, "
        f"{theirs.get(name, 'not set')!r} in the recipe"
        for name in sorted(mine.keys() | theirs.keys())
        if not _are_equal(mine.get(name), theirs.get(name))
    ]


def _are_equal(mine: Any, theirs: Any) -> bool:
    """Return whether two settings are equal, or name the same file of this machine."""
    if mine == theirs:
        return True
    if not isinstance(mine, str) or not isinstance(theirs, Location):
        return False
    if is_remote(mine) or is_remote(theirs):
        return False
    return os.path.realpath(mine) == os.path.realpath(theirs)


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = [(f"{name}.{key}".lstrip("."), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{name}[{number}]", item) for number, item in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for child, item in items for key, leaf in _flatten(item, child).items()}
