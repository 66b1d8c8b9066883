"""Commands that send a request to a run while it trains: stop, or change the data workers."""

from typing import Annotated

import typer

from foundation.wording import counted
from transloom.cli.options import JsonOption, RunArgument, answer


def stop(run: RunArgument, as_json: JsonOption = False) -> None:
    """Ask a run that trains to write a checkpoint and stop.

    The run stops at its next step and exits with code 75. The command that trained it continues it
    later.

    Example:  transloom stop runs/phrasebook
    """
    from trainer.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.card()
    folder.ask_to_stop()
    told = (
        f"Requested: {run} writes a checkpoint and stops, if it is being trained. {folder.log} "
        "reports when it has; the command that trained it continues from there."
    )
    answer({"run": str(run), "log": str(folder.log)}, as_json, told)


def workers(
    run: RunArgument,
    count: Annotated[int, typer.Argument(min=1, metavar="COUNT", help="Number of data workers.")],
    as_json: JsonOption = False,
) -> None:
    """Ask a run that trains to use a given number of data workers.

    The losses and all other numbers of the run stay the same.

    Example:  transloom workers runs/phrasebook 4
    """
    from trainer.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.card()
    folder.request_data_workers(count)
    told = (
        f"Requested: {counted(count, 'data worker')} for {run}, now or when it trains next. "
        f"{folder.log} reports when they are ready."
    )
    answer({"run": str(run), "data_workers": count, "log": str(folder.log)}, as_json, told)
