"""Readable problems of a recipe, each with the file or override that causes it.

pydantic's errors are turned into one `FieldProblem` per field; errors of a union's alternatives are
merged. The message groups the problems by their cause, which is the file or an override.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from foundation.wording import counted, format_value, join_items

# Limits of a message: characters of a value, characters of an override, number of problems.
LONGEST_SHOWN = 300
LONGEST_OVERRIDE_SHOWN = 200
MAX_PROBLEMS = 20
# Section whose values are not shown. A user may have put a webhook's secret URL there by mistake.
SECRET_SECTION = "tracking.notify"
_EXPECTED = "Input should be "
# Pydantic's terms, and their replacements in the terms of YAML.
_PLAIN_MESSAGES = {
    "valid integer": "whole number",
    "valid number": "number",
    "valid string": "text",
    "valid tuple": "list",
    "valid list": "list",
    "valid dictionary": "table",
    "a valid boolean": "true or false",
    "greater than": "a number greater than",
    "less than": "a number less than",
}
# Unquoted words that YAML does not read as text, and an example, by the value that they become.
_YAML_WORDS = {
    "False": ("no, off and false", "no"),
    "True": ("yes, on and true", "yes"),
    "None": ("null, ~ and nothing", "null"),
}


@dataclass(frozen=True)
class FieldProblem:
    """An invalid field.

    Attributes:
        key: dotted name of the field; empty if the problem concerns the recipe as a whole.
        text: description of the problem.
    """

    key: str
    text: str


@dataclass(frozen=True)
class _Error:
    """One of pydantic's errors."""

    kind: str
    location: tuple[int | str, ...]
    message: str
    value: Any


def problems_of(
    error: ValidationError, recipe: type[BaseModel], known_keys: Sequence[str]
) -> list[FieldProblem]:
    """Return a problem for each invalid field.

    Args:
        recipe: the class that the values were validated against.
        known_keys: the dotted names of the recipe's sections and fields.
    """
    errors = [_Error(e["type"], e["loc"], e["msg"], e["input"]) for e in error.errors()]
    causes = [e for e in errors if e.kind != "too_short"]

    def follows(location: tuple[int | str, ...]) -> bool:
        """Return whether the error at a location follows from another error.

        pydantic reports a list as too short when one of its items is invalid.
        """
        return any(cause.location[: len(location)] == location for cause in causes)

    told = [e for e in errors if e.kind != "too_short" or not follows(e.location)]
    return [_problem(e, known_keys) for e in _with_merged_unions(told, recipe)]


def message_of(
    path: object,
    problems: Sequence[FieldProblem],
    overrides: Sequence[str],
    problems_of_file: Callable[[], Sequence[FieldProblem]],
) -> str:
    """Return one paragraph that lists each cause (the file or overrides) with its problems.

    Args:
        problems_of_file: function that returns the problems of the file without overrides.
    """
    own = {p.text for p in problems_of_file()} if overrides else {p.text for p in problems}
    by_source: dict[str, list[str]] = {}
    for problem in problems[:MAX_PROBLEMS]:
        source = str(path) if problem.text in own else override_text(_causes(problem, overrides))
        by_source.setdefault(source, []).append(problem.text)
    text = ". ".join(f"{source}: {'; '.join(texts)}" for source, texts in by_source.items())
    if len(problems) > MAX_PROBLEMS:
        text += f"; and {len(problems) - MAX_PROBLEMS} more"
    return text


def override_text(overrides: Sequence[str]) -> str:
    """Return overrides as the user gave them, for the beginning of a message."""
    shown = join_items(
        repr(_without_secret(override)[:LONGEST_OVERRIDE_SHOWN]) for override in overrides
    )
    return f"{'Override' if len(overrides) == 1 else 'Overrides'} {shown}"


def _without_secret(override: str) -> str:
    """Return an override without its value if the value may contain `SECRET_SECTION`."""
    key = override.partition("=")[0]
    return f"{key}=…" if f"{SECRET_SECTION}.".startswith(f"{key}.") or _is_secret(key) else override


def _is_secret(key: str) -> bool:
    return f"{key}.".startswith(f"{SECRET_SECTION}.")


def _causes(problem: FieldProblem, overrides: Sequence[str]) -> list[str]:
    """Return the overrides that most likely cause a problem: the first of these that exist.

    1. the last override of exactly the problem's field,
    2. the overrides whose fields the problem's text names,
    3. the overrides of a section around the field, or of a part of the field,
    4. all overrides.
    """

    def are_nested(key: str) -> bool:
        shorter, longer = sorted((key, problem.key), key=len)
        return f"{longer}.".startswith(f"{shorter}.")

    keys = {override: override.partition("=")[0] for override in overrides}
    nested = [o for o, key in keys.items() if problem.key and are_nested(key)]
    named = [o for o, k in keys.items() if re.search(rf"(?<![\w.]){re.escape(k)}\b", problem.text)]
    # A later override of a field replaces an earlier one.
    if exact := [o for o in nested if keys[o] == problem.key]:
        return exact[-1:]
    return named or nested or list(overrides)


def _with_merged_unions(errors: Sequence[_Error], recipe: type[BaseModel]) -> list[_Error]:
    """Replace the errors of a union's alternatives by one error for the field.

    If the given value is a section, keep the errors inside it instead, and remove the name of the
    alternative from their locations.
    """
    merged: dict[tuple[Any, ...], _Error] = {}
    for number, error in enumerate(errors):
        found = _union_in(error.location, recipe)
        if found is None:
            merged[number, ()] = error
            continue
        place, members = found
        field, inner = error.location[:place], error.location[place + 1 :]
        values = [
            e.value for e in errors if e.location[:place] == field and len(e.location) == place + 1
        ]
        if any(isinstance(value, dict) for value in values):
            if inner or not error.kind.endswith("_type"):
                at = (*field, *inner)
                merged[number, ()] = _Error(error.kind, at, error.message, error.value)
        else:
            message = f"give {' or '.join(map(_in_words, members))}"
            merged[field] = _Error("union", field, message, error.value)
    return list(merged.values())


def _union_in(
    location: tuple[int | str, ...], recipe: type[BaseModel]
) -> tuple[int, list[Any]] | None:
    """Find the union in an error's location.

    Returns:
        The index at which the location names the union's alternative, and all alternatives; None if
        the location contains no union.
    """
    annotation: Any = recipe
    for place, part in enumerate(location):
        members = _members(annotation)
        if len(members) > 1:
            return place, members
        annotation = members[0]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if part not in annotation.model_fields:
                return None
            annotation = annotation.model_fields[str(part)].annotation
        elif inner := [one for one in get_args(annotation) if one is not Ellipsis]:
            annotation = inner[-1]  # the type of items, or of a mapping's values
        else:
            return None
    return None


def _members(annotation: Any) -> list[Any]:
    """Return a union's alternatives except None, or only the annotation if it is not a union."""
    if get_origin(annotation) in (Union, UnionType):
        return [one for one in get_args(annotation) if one is not type(None)]
    return [annotation]


def _in_words(alternative: Any) -> str:
    kind, bounds = alternative, ""
    if get_origin(alternative) is Annotated:
        kind, *more = get_args(alternative)
        limits = [limit for info in more if isinstance(info, FieldInfo) for limit in info.metadata]
        for limit in limits:
            if (above := getattr(limit, "gt", None)) is not None:
                bounds = f" above {above}"
            elif (least := getattr(limit, "ge", None)) is not None:
                bounds = f" of at least {least}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "{" + ", ".join(f"{name}: …" for name in kind.model_fields) + "}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return words.get(kind, str(kind)) + bounds


def _problem(error: _Error, known_keys: Sequence[str]) -> FieldProblem:
    key = ".".join(map(str, error.location))
    return FieldProblem(key, _text(error, key, known_keys))


def _text(error: _Error, key: str, known_keys: Sequence[str]) -> str:
    if error.kind == "extra_forbidden":
        *_, last = error.location
        if "." in str(last):
            *sections, name = key.split(".")
            nested = (
                "".join(f"{section}: {{" for section in sections)
                + f"{name}: …"
                + "}" * len(sections)
            )
            return (
                f"unknown key {key}: keys with dots are for overrides. In a recipe, nest the key, "
                f"as in {nested}"
            )
        nearest = _nearest(key, known_keys)
        hint = f"; did you mean {nearest}?" if nearest else ""
        value = "is not shown" if _is_secret(key) else _shown(error.value)
        return f"unknown key {key} (value {value}){hint}"
    if error.kind == "missing":
        return f"{key} is missing and has no default"
    message = error.message.removeprefix("Value error, ")
    if error.kind == "value_error":
        return f"{key}: {message}" if key and not message.startswith(key) else message
    if _is_secret(key):
        return f"{key} has an unexpected value, which is not shown: {_in_plain_terms(message)}"
    if error.kind == "model_type":
        return f"{key} is {_shown(error.value)}: give its fields by name, as {key}.FIELD=VALUE"
    return f"{key} is {_shown(error.value)}: {_in_plain_terms(message)}{_quoting_hint(error)}"


def _quoting_hint(error: _Error) -> str:
    """Return the remedy if a text was expected, but YAML reads the unquoted word differently."""
    value = error.value
    expects_text = error.kind == "string_type" or error.message.endswith("a text")
    if not expects_text or not isinstance(value, (bool, int, float, date, NoneType)):
        return ""
    words, example = _YAML_WORDS.get(str(value), ("it", _shown(value).strip("'")))
    return (
        f". Without quotes, YAML reads {words} as {_shown(value)}: quote the text, such as "
        f'"{example}"; in an override, \'"{example}"\''
    )


def _in_plain_terms(message: str) -> str:
    """Return pydantic's message in the terms of YAML."""
    if not message.startswith(_EXPECTED):
        return message
    expected = message.removeprefix(_EXPECTED).partition(", unable to parse")[0]
    for pydantics, ours in _PLAIN_MESSAGES.items():
        expected = expected.replace(pydantics, ours)
    return f"expected {expected}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else format_value(value)
    if len(text) <= LONGEST_SHOWN:
        return text
    return f"{text[:LONGEST_SHOWN]}… ({counted(len(text), 'character')})"


def _nearest(key: str, known: Sequence[str]) -> str | None:
    """Return the most similar known key: first among its siblings, then among all keys."""
    section, _, name = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    if close := difflib.get_close_matches(name, siblings, n=1):
        return siblings[close[0]]
    everywhere = {k.rpartition(".")[2]: k for k in reversed(known)}
    close = difflib.get_close_matches(name, everywhere, n=1)
    return everywhere[close[0]] if close else None
