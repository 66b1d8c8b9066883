"""Public names of transloom's Python API, which `transloom.api` defines.

The command line and every other module of this package import this file first. The API is therefore
imported only when one of its names is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transloom.api import (
        Explanation,
        Job,
        Recipe,
        Run,
        ServedTranslator,
        Translation,
        Translator,
        TransloomError,
        load_recipe,
        plan,
        prepare,
        submit,
        train,
    )

__all__ = [
    "Explanation",
    "Job",
    "Recipe",
    "Run",
    "ServedTranslator",
    "Translation",
    "Translator",
    "TransloomError",
    "load_recipe",
    "plan",
    "prepare",
    "submit",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transloom import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
