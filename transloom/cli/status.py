"""`transloom runs` and `transloom status`: how runs stand, from any shell that sees them."""

from pathlib import Path
from typing import Annotated

import typer

from transloom.cli.options import JsonOption, RunArgument, answer


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The folder in which the runs lie.")
    ] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List runs: state, step, scores, speed, time left, owner.

    Reads their folders alone, wherever they are trained. Example:  transloom runs
    """
    from transloom.observe.terminal.run_status_text import runs_in, runs_table

    run_statuses = runs_in(folder)
    answer([s.model_dump(mode="json") for s in run_statuses], as_json, runs_table(run_statuses))


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show how a run stands: whether it trains, where, how fast, how well, and what happened last.

    Reads its folder alone. Example:  transloom status runs/phrasebook --json
    """
    from transloom.observe.terminal.run_status_text import status_of, status_text

    run_status = status_of(run)
    answer(run_status.model_dump(mode="json"), as_json, status_text(run_status))
