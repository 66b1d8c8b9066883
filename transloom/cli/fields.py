"""Command `transloom fields`: explain the fields of a recipe."""

import json
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from cluster.errors import RecipeError
from foundation.errors import ExtensionError
from foundation.section import change_class
from foundation.tasks import DEFAULT_TASK
from transloom.cli.completion import task_names
from transloom.cli.options import JsonOption, answer
from transloom.observe.terminal.tables import AnswerTable, Column


def fields(
    section: Annotated[
        str,
        typer.Argument(
            metavar="[SECTION]",
            help="Show only the fields whose names begin with this text, such as trainer.schedule.",
        ),
    ] = "",
    task: Annotated[
        str,
        typer.Option(
            help="Show the fields of recipes for this task, such as causal_lm.",
            autocompletion=task_names,
        ),
    ] = DEFAULT_TASK,
    search: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            help="Show only the fields whose name, default or meaning contains all these words.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain the fields of a recipe: their defaults, meanings and change classes.

    The change class of a field says what a new value does to an existing run.

    Examples:

      transloom fields trainer.schedule

      transloom fields --search "learning rate"
    """
    rows = field_rows(section, task, search)
    answer(rows, as_json, fields_table(rows))


def field_rows(
    section: str = "", task: str | None = None, search: str = ""
) -> list[dict[str, Any]]:
    """Return name, default, change class and meaning of fields, as JSON values.

    Args:
        section: prefix of the fields' dotted names.
        task: the task of the recipe; None for the default task.
        search: words that must all occur in a field's name, default or meaning, in any case and
            order.

    Raises:
        RecipeError: no field has the prefix or the words, or the task does not exist.
    """
    from cluster.recipe import Recipe, walk_fields
    from trainer.recipe import recipe_class

    try:
        recipe = recipe_class(Recipe, task or DEFAULT_TASK)
    except ExtensionError as error:
        raise RecipeError(str(error)) from error
    rows = [
        {
            "field": name,
            "default": "required" if field.is_required() else _default(field),
            "change": change,
            "meaning": field.description or "",
        }
        for name, field in walk_fields(recipe)
        if (change := change_class(field)) and name.startswith(section)
    ]
    # A section exists even if the task has no fields in it.
    if not rows and section not in recipe.model_fields:
        known = ", ".join(recipe.model_fields)
        raise RecipeError(
            f"No field name begins with {section!r}: name a section or one of its fields. The "
            f"sections are {known}"
        )
    words = search.casefold().split()
    found = [row for row in rows if all(word in _text_of(row) for word in words)]
    if words and not found:
        raise RecipeError(
            f"No field{f' of {section}' if section else ''} has {search!r} in its name, default or "
            "meaning: search for a part of the word, or list all fields with `transloom fields`"
        )
    return found


def _text_of(row: dict[str, Any]) -> str:
    name = row["field"]
    return f"{name} {name.replace('_', ' ')} {row['default']} {row['meaning']}".casefold()


def fields_table(rows: list[dict[str, Any]]) -> AnswerTable:
    table = AnswerTable(
        Column("field", copied=True),
        "default",
        "change",
        "meaning",
        caption="identity: a new value makes a new run. continuable: may change when a run is "
        "continued. execution: may always change, because it affects no training sample.",
    )
    for row in rows:
        table.add(row["field"], _as_in_a_recipe(row["default"]), row["change"], row["meaning"])
    return table


def _default(field: FieldInfo) -> Any:
    return to_jsonable_python(field.get_default(call_default_factory=True))


def _as_in_a_recipe(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
