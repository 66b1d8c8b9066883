"""`transloom report`: runs as one file that opens without a network."""

from pathlib import Path
from typing import Annotated

import typer

from transloom.cli.completion import run_folders
from transloom.cli.options import JsonOption, answer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="The runs' folders.", autocompletion=run_folders),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Freeze the dashboard's page into one HTML file, to be sent and opened without a network.

    Curves, events, recipe, cleaning, samples, scores with signatures, environment, hashes, and the
    commands that repeat it. Example:

      transloom report runs/phrasebook -o phrasebook.html
    """
    from transloom.observe.report.report import write_report

    summary = write_report(runs, output)
    answer(summary, as_json, str(output))
