"""`transloom demo` and `transloom fields`: what a newcomer asks for first."""

from typing import Annotated

import typer

from cluster.errors import EXIT_PREEMPTED
from cluster.supervision.command_signals import ignore_signals
from cluster.terminal import Terminal
from transloom.cli.options import JsonOption, answer


def demo() -> None:
    """Learn French–English from a built-in phrase book: prepare, train, evaluate, translate.

    Needs no download and no account. Stop it with Ctrl-C and start it again: it goes on.
    """
    from transloom.commands.demo import run_demo

    outcome = run_demo(Terminal())
    ignore_signals()
    raise typer.Exit(0 if outcome == "finished" else EXIT_PREEMPTED)


def fields(
    section: Annotated[
        str, typer.Argument(metavar="[SECTION]", help="Only the fields that begin so.")
    ] = "",
    task: Annotated[
        str, typer.Option(help="Of recipes of this task, such as causal_lm.")
    ] = "translation",
    search: Annotated[
        str, typer.Option(metavar="WORDS", help="Only those that speak of this.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain the fields of a recipe: default, what a change does, meaning.

    Examples:

      transloom fields trainer.schedule

      transloom fields --search "learning rate"
    """
    from transloom.commands.field_guide import field_rows, fields_table

    rows = field_rows(section, task, search)
    answer(rows, as_json, fields_table(rows))
