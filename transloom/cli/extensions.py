"""Command `transloom extensions`: list the extensions that installed packages announce."""

from itertools import groupby
from typing import Any

from transloom.cli.options import JsonOption, answer
from transloom.observe.terminal.tables import AnswerTable, Column


def extensions(as_json: JsonOption = False) -> None:
    """List the extensions that installed packages announce.

    The command reads the packages' metadata and imports none of them. A recipe loads an extension
    only if it names its module: extensions: [MODULE].

    Examples:

      transloom extensions
    """
    rows = extension_rows()
    answer(rows, as_json, extensions_table(rows))


def extension_rows() -> list[dict[str, Any]]:
    """Return the package and the components of each announced module, sorted by module."""
    from foundation.announced_extensions import announced_components

    by_module = groupby(
        announced_components(), key=lambda one: (one.module, one.package, one.version)
    )
    return [
        {
            "extension": module,
            "registers": [f"{one.kind} {one.name}" for one in components],
            "package": package,
            "version": version,
        }
        for (module, package, version), components in by_module
    ]


def extensions_table(rows: list[dict[str, Any]]) -> AnswerTable:
    table = AnswerTable(
        Column("extension", copied=True),
        "registers",
        "package",
        "version",
        caption="To use one of them, name it in the recipe: extensions: [EXTENSION]. Packages "
        "announce extensions by the entry points transloom.extensions.",
    )
    for row in rows:
        table.add(row["extension"], ", ".join(row["registers"]), row["package"], row["version"])
    return table
