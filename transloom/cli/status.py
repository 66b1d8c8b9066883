"""Commands `transloom runs` and `transloom status`: show the status of runs on any machine."""

from pathlib import Path
from typing import Annotated

import typer

from transloom.cli.options import JsonOption, RunArgument, answer


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Parent folder of the runs.")
    ] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List runs with their state, step, scores, speed, time left and owner.

    The command only reads the runs' folders, so the runs may train on any machine.

    Example:  transloom runs
    """
    from transloom.observe.terminal.run_status_text import runs_in, runs_table

    run_statuses = runs_in(folder)
    answer([s.model_dump(mode="json") for s in run_statuses], as_json, runs_table(run_statuses))


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the status of a run: its state, host, speed, scores and latest event.

    The command only reads the run's folder, so the run may train on any machine.

    Example:  transloom status runs/phrasebook --json
    """
    from transloom.observe.terminal.run_status_text import status_of, status_text

    run_status = status_of(run)
    answer(run_status.model_dump(mode="json"), as_json, status_text(run_status))
