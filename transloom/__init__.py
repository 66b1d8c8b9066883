"""transloom from Python: see `transloom.api`, whose names are here.

Imports the standard library alone, so a program that imports it pays for nothing else.
"""

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
