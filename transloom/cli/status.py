"""Commands `transloom runs` and `transloom status`: the status of runs, from any machine."""

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

    The command reads only the runs' folders, wherever the runs are trained.

    Example:  transloom runs
    """
    from transloom.observe.terminal.run_status_text import runs_in, runs_table

    run_statuses = runs_in(folder)
    answer([s.model_dump(mode="json") for s in run_statuses], as_json, runs_table(run_statuses))


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the status of a run: state, host, speed, scores, and its latest event.

    The command reads only the run's folder.

    Example:  transloom status runs/phrasebook --json
    """
    from transloom.observe.terminal.run_status_text import status_of, status_text

    run_status = status_of(run)
    answer(run_status.model_dump(mode="json"), as_json, status_text(run_status))
