"""What may be asked of a run while it trains: to stop, or to have more data workers."""

from typing import Annotated

import typer

from foundation.wording import counted
from transloom.cli.options import JsonOption, RunArgument, answer


def stop(run: RunArgument, as_json: JsonOption = False) -> None:
    """Ask a run that trains to leave a checkpoint at the next step and stop (exit code 75).

    Example:  transloom stop runs/phrasebook
    """
    from trainer.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.card()
    folder.ask_to_stop()
    told = (
        f"{run} is asked to leave a checkpoint and stop, if it is being trained. {folder.log} "
        "tells when it has; the command that trained it goes on from there."
    )
    answer({"run": str(run), "log": str(folder.log)}, as_json, told)


def workers(
    run: RunArgument,
    count: Annotated[int, typer.Argument(min=1, metavar="COUNT", help="Data workers to have.")],
    as_json: JsonOption = False,
) -> None:
    """Ask a run that trains to have so many data workers; no number of it changes.

    Example:  transloom workers runs/phrasebook 4
    """
    from trainer.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.card()
    folder.request_data_workers(count)
    told = (
        f"{run} is asked to have {counted(count, 'data worker')}, now or when it trains next. "
        f"{folder.log} tells when they serve."
    )
    answer({"run": str(run), "data_workers": count, "log": str(folder.log)}, as_json, told)
