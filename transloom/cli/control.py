"""Commands `transloom stop` and `transloom workers`, which send a request to a training run."""

from typing import Annotated

import typer

from foundation.wording import counted
from trainer.runs.run_url import is_run_url, run_url
from transloom.cli.options import JsonOption, RunLocationArgument, answer


def stop(run: RunLocationArgument, as_json: JsonOption = False) -> None:
    """Ask a run that is training to write a checkpoint and stop.

    The run stops at its next step, and its training command exits with code 75. The same training
    command continues the run later.

    Example:  transloom stop runs/phrasebook
    """
    told = "reports the stop. To continue the run later, run its training command again."
    if is_run_url(run):
        from trainer.runs.remote.requests import request_stop  # imports obstore

        url = run_url(run)
        request_stop(url)
        told = f"Requested that {url} write a checkpoint and stop. Its log.txt {told}"
        answer({"run": url, "log": f"{url}/log.txt"}, as_json, told)
        return
    from trainer.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.card()
    folder.ask_to_stop()
    told = (
        f"Requested that {run} write a checkpoint and stop, if it is training. {folder.log} {told}"
    )
    answer({"run": str(run), "log": str(folder.log)}, as_json, told)


def workers(
    run: RunLocationArgument,
    count: Annotated[int, typer.Argument(min=1, metavar="COUNT", help="Number of data workers.")],
    as_json: JsonOption = False,
) -> None:
    """Change the number of data workers of a run, even while it is training.

    The number of data workers affects neither the losses nor any other result of the run.

    Example:  transloom workers runs/phrasebook 4
    """
    if is_run_url(run):
        from trainer.runs.remote.requests import request_data_workers  # imports obstore

        url = run_url(run)
        request_data_workers(url, count)
        told = (
            f"Requested {counted(count, 'data worker')} for {url}. Its log.txt reports when the "
            "data workers are ready."
        )
        found = {"run": url, "data_workers": count, "log": f"{url}/log.txt"}
        answer(found, as_json, told)
        return
    from trainer.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.card()
    folder.request_data_workers(count)
    told = (
        f"Requested {counted(count, 'data worker')} for {run}, which the run starts now or when it "
        f"trains next. {folder.log} reports when the data workers are ready."
    )
    answer({"run": str(run), "data_workers": count, "log": str(folder.log)}, as_json, told)
