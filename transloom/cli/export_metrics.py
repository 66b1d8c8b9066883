"""`transloom export-metrics`: the record of a run for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.terminal import Terminal
from transloom.cli.options import JsonOption, RunArgument, answer


def export_metrics(
    run: RunArgument,
    to: Annotated[
        Literal["tensorboard", "csv", "parquet"],
        typer.Option("--to", help="tensorboard and parquet need the extra of that name."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="A new folder. Default: RUN-FORMAT."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a former export in that folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run's record as TensorBoard's events, or as tables in CSV or Parquet.

    All steps, validations, samples and events are in it. Examples:

      transloom export-metrics runs/phrasebook --to csv

      transloom export-metrics runs/phrasebook --to tensorboard -o logs/phrasebook
    """
    from transloom.commands.exporting_metrics import export_run_metrics, in_words

    folder = output or Path(f"{run.absolute().name}-{to}")
    exported = export_run_metrics(run, to, folder, Terminal(stderr=True), replace=force)
    found = {"folder": str(folder), **exported.model_dump(mode="json")}
    answer(found, as_json, in_words(exported, folder))
