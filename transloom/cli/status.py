"""Command `transloom status`: show the status of a run on any machine."""

from transloom.cli.options import JsonOption, RunArgument, answer


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the status of a run: its state, host, speed, scores and latest event.

    The command only reads the run, so the run may train on any machine.

    Example:  transloom status runs/phrasebook --json
    """
    from transloom.observe.terminal.run_status_text import status_of, status_text

    run_status = status_of(run)
    answer(run_status.model_dump(mode="json"), as_json, status_text(run_status))
