"""Reference pages of the documentation site that are generated from the code.

commands        every command's help, from the Typer application
metrics         tables of docs/reference/metrics.md, from the table of facts; they are committed,
                and running this file renews them
recipe fields   defaults, change classes and meanings, from the recipe's classes
Python API, formats     docstrings, by mkdocstrings
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from foundation.tasks import BUILT_IN_TASKS, DEFAULT_TASK
from run_store.record.facts import FACTS, LINES
from run_store.record.run_metrics import RUN_METRICS
from transloom.cli.app import app
from transloom.cli.fields import field_rows

METRICS_PAGE = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"
API = (
    *("load_recipe", "prepare", "plan", "train", "submit", "Recipe", "Run", "Job"),
    *("Translator", "Translation", "Explanation", "ServedTranslator", "TransloomError"),
)


def commands_page() -> str:
    """Return the help of all commands."""
    root = typer.main.get_command(app)
    context = root.make_context("transloom", [], resilient_parsing=True)
    lines = [
        "# Commands",
        "",
        "The text of each command's `--help`. Exit codes are listed [here](exit-codes.md).",
        "",
    ]
    panels: dict[str, dict[str, Any]] = {}
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        if not command.hidden:
            panels.setdefault(command.rich_help_panel, {})[name] = command
    for panel, found in panels.items():
        links = ", ".join(f"[{name}](#transloom-{name})" for name in found)
        lines.append(f"- **{panel}**: {links}")
    lines.append("")
    for found in panels.values():
        for name, command in found.items():
            lines += _command(command, context, f"transloom {name}", level=2)
    return "\n".join(lines)


def _command(command: Any, parent: Any, path: str, level: int) -> Iterator[str]:
    context = command.context_class(command, parent=parent, info_name=path.split()[-1])
    yield from (f"{'#' * level} {path}", "")
    paragraphs = [p.strip() for p in inspect.cleandoc(command.help or "").split("\n\n")]
    for is_example, found in groupby(paragraphs, _is_example):
        if is_example:
            yield from ("```text", *found, "```", "")
        else:
            yield from (f"{_escaped(Text.from_markup(p).plain)}\n" for p in found)
    parameters = [p for p in command.get_params(context) if not getattr(p, "hidden", False)]
    rows = [_parameter(p, context) for p in parameters if p.name != "help"]
    if rows and not hasattr(command, "commands"):
        usage = " ".join(command.collect_usage_pieces(context))
        yield from ("```text", f"{path} {usage}", "```", "")
        yield from ("| argument or option | meaning | default |", "|---|---|---|", *rows, "")
    for name in command.list_commands(context) if hasattr(command, "commands") else ():
        yield from _command(
            command.get_command(context, name), context, f"{path} {name}", level + 1
        )


def _is_example(paragraph: str) -> bool:
    return "transloom " in paragraph and not paragraph[0].isupper()


def _parameter(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.display_name_raw}`"
    else:
        names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
        if not parameter.is_flag:
            names += f" `{parameter.display_type_rich(context)}`"
    default = parameter.default
    if callable(default) or default in (None, False, "", (), []) or parameter.required:
        default = "required" if parameter.required else ""
    else:
        default = f"`{getattr(default, 'value', default)}`"
    meaning = Text.from_markup(parameter.help or "").plain
    if variable := getattr(parameter, "envvar", None):
        meaning += f" Environment variable: `{variable}`."
    return f"| {names.replace('|', chr(92) + '|')} | {_escaped(meaning)} | {default} |"


def fields_page() -> str:
    """Return the fields of recipes: those of translation, then those that other tasks add."""
    lines = [
        "# Recipe fields",
        "",
        "A recipe is a YAML file; each field can also be set on the command line as `KEY=VALUE`.",
        "`transloom fields` prints them in a terminal. The *change class* says what a new",
        "value does to an existing run:",
        "",
        "- **identity**: it makes a new run.",
        "- **continuable**: it may change when a run is continued.",
        "- **execution**: it may always change, because it affects no training sample.",
        "",
    ]
    rows = field_rows()
    for section in dict.fromkeys(map(_section, rows)):
        lines += _fields(f"## {section}", [row for row in rows if _section(row) == section])
    known = {json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows}
    for task in BUILT_IN_TASKS:
        if task == DEFAULT_TASK:
            continue
        found = [
            row
            for row in field_rows(task=task)
            if json.dumps(row, sort_keys=True, ensure_ascii=False) not in known
        ]
        if found:
            lines += _fields(f"## Task {task}", found)
    return "\n".join(lines)


def _section(row: dict[str, Any]) -> str:
    section, dot, _ = row["field"].partition(".")
    return section if dot else "Top level"


def _fields(heading: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [heading, ""]
    for row in rows:
        default = row["default"]
        text = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
        shown = (
            "required" if text == "required" else f"default `{text}`" if text else "default empty"
        )
        lines += [f"### `{row['field']}`", "", f"*{row['change']}*, {shown}", ""]
        lines += [_escaped(row["meaning"]), ""]
    return lines


def python_page() -> str:
    """Return the Python API, from its docstrings."""
    members = "\n".join(f"::: transloom.api.{name}" for name in API)
    return (
        "# Python API\n\n`import transloom` provides these names. "
        "[Use transloom from Python](../how-to/python.md) shows them at work.\n\n" + members + "\n"
    )


def record_page() -> str:
    """Return the lines of a run's metrics file, from the classes that read and write them."""
    return (
        "# Record format\n\nEach line of a run's `metrics.jsonl` is a JSON object of one of these "
        "kinds. [The run folder](run-folder.md) lists the other files.\n\n"
        "::: run_store.record.metrics_lines\n"
    )


def metrics_tables() -> dict[str, str]:
    """Return the generated tables of docs/reference/metrics.md, by the name of their marker."""
    prefix = "transloom_run_"
    metrics = (f"| `{name.removeprefix(prefix)}` | {text} |" for name, text in RUN_METRICS.items())
    fields = (
        f"| `{fact.name}` | {fact.title} | {fact.unit} | {fact.description} |"
        for fact in FACTS
        if any(fact.name in line.model_fields for line in LINES)
    )
    headings = {
        "metrics": (f"| name, after `{prefix}` | meaning |", "|---|---|", *metrics),
        "fields": ("| field | title | unit | meaning |", "|---|---|---|---|", *fields),
    }
    return {name: "\n".join(rows) + "\n" for name, rows in headings.items()}


def with_tables(page: str) -> str:
    """Return the text of a page with the generated tables between its markers."""
    for name, table in metrics_tables().items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return page


def formats_page() -> str:
    """Return the other formats, from the classes that read and write them."""
    names = (
        "run_store.folder.RunMetadata",
        "run_store.checkpoints.format",
        "run_store.record.run_status_model",
        "run_store.record.vitals",
        "run_store.start",
        "data_pipeline.dataset.manifest_header.ManifestHeader",
        "data_pipeline.dataset.manifest.Manifest",
    )
    return (
        "# File formats\n\nEach format has a version. Unknown keys and wrong types are errors.\n\n"
        + "\n".join(f"::: {name}" for name in names)
        + "\n"
    )


def _escaped(text: str) -> str:
    """Escape what Markdown would read as a table, a tag or emphasis, outside `code`."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    shown = (p if p.startswith("`") else re.sub(r"([<>*_\[\]])", r"\\\1", p) for p in parts)
    return "".join(shown).replace("|", "\\|")


GENERATED: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/recipe-fields.md": fields_page,
    "reference/python-api.md": python_page,
    "reference/record.md": record_page,
    "reference/formats.md": formats_page,
}

if __name__ == "__main__":
    METRICS_PAGE.write_text(with_tables(METRICS_PAGE.read_text()))
