"""Commands `transloom stop` and `transloom workers`, which send a request to a training run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundation.wording import counted
from run_store.start import StopOrder
from transloom.cli.options import JsonOption, RunLocationArgument, answer

if TYPE_CHECKING:
    from run_store.folder import RunFolder


def stop(run: RunLocationArgument, as_json: JsonOption = False) -> None:
    """Ask a run that is training to write a checkpoint and stop.

    The run stops at its next step, and its training command exits with code 75. The same training
    command continues the run later.

    Example:  transloom stop runs/phrasebook
    """
    from cluster.supervision.invocation import current_user

    folder, log = _run_and_log(run)
    order = StopOrder(by=current_user())
    if folder.url:
        from run_store.remote.head import request_stop  # imports obstore

        request_stop(folder.url, order.by)
        told = f"Requested that {folder.url} write a checkpoint and stop. Its log.txt"
    else:
        folder.ask_to_stop(order)
        told = f"Requested that {run} write a checkpoint and stop, if it is training. {log}"
    told += " reports the stop. To continue the run later, run its training command again."
    answer({"run": folder.location, "log": log}, as_json, told)


def workers(
    run: RunLocationArgument,
    count: Annotated[int, typer.Argument(min=1, metavar="COUNT", help="Number of data workers.")],
    as_json: JsonOption = False,
) -> None:
    """Change the number of data workers of a run, even while it is training.

    The number of data workers affects neither the losses nor any other result of the run.

    Example:  transloom workers runs/phrasebook 4
    """
    folder, log = _run_and_log(run)
    told = f"Requested {counted(count, 'data worker')} for {folder.location}"
    if folder.url:
        from run_store.remote.head import request_data_workers  # imports obstore

        request_data_workers(folder.url, count)
        told += ". Its log.txt"
    else:
        folder.request_data_workers(count)
        told += f", which the run starts now or when it trains next. {log}"
    told += " reports when the data workers are ready."
    answer({"run": folder.location, "data_workers": count, "log": log}, as_json, told)


def _run_and_log(run: Path) -> "tuple[RunFolder, str]":
    """Return a run and the location of its log.

    The function checks that a local run exists, but not that a run in an object store does.
    """
    from run_store.folder import RunFolder

    folder = RunFolder.of(run)
    if folder.url:
        return folder, f"{folder.url}/log.txt"
    folder.card()
    return folder, str(folder.log)
