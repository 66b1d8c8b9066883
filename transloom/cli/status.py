"""Command `transloom status`: show the status of a run on any machine."""

from typing import Annotated

import typer

from transloom.cli.options import JsonOption, RunArgument, answer


def status(
    run: RunArgument,
    from_record: Annotated[
        bool,
        typer.Option(
            "--from-record",
            help="Write the run's status.json again, from its record, checkpoints and log. The run "
            "must not be in training.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the status of a run: its state, host, speed, scores and latest event.

    The process that trains a run writes its status every two seconds; this command only reads it,
    on any machine.

    Example:  transloom status runs/phrasebook --json
    """
    from transloom.observe.terminal.run_status_text import status_of, status_text

    if from_record:
        from run_store.folder import RunFolder
        from run_store.record.recorded_status import write_recorded_status

        status_of(run)
        write_recorded_status(RunFolder(run))
    run_status = status_of(run)
    answer(run_status.model_dump(mode="json"), as_json, status_text(run_status))
