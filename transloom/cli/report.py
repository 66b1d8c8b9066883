"""Command `transloom report`: save runs as one HTML file that opens without a network."""

from pathlib import Path
from typing import Annotated

import typer

from transloom.cli.options import JsonOption, answer, runs_argument


def report(
    runs: Annotated[list[Path], runs_argument(help="Folders or URLs of the runs to save.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Save the dashboard's page about runs as one HTML file that opens without a network.

    The file shows curves, events, the recipe, the dataset cleaning, samples, scores with
    signatures, the environment and hashes. It also has the commands that reproduce each run.

    Example:

      transloom report runs/phrasebook -o phrasebook.html
    """
    from transloom.observe.report.report import write_report

    summary = write_report(runs, output)
    answer(summary, as_json, str(output))
