"""Command `transloom export-metrics`: convert the record of a run for other programs."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from foundation.terminal import Terminal, bars_by_name, percentage_bars
from foundation.wording import counted, join_items
from transloom.cli.options import JsonOption, RunArgument, answer


def export_metrics(
    run: RunArgument,
    to: Annotated[
        Literal["tensorboard", "csv"],
        typer.Option(
            help="Format to write. tensorboard needs the optional dependency "
            "'transloom\\[tensorboard]'. For Parquet, convert the CSV with pandas.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Folder to create. Default: RUN-FORMAT in the current folder, such as "
            "phrasebook-csv.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a previous export in that folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run's record as TensorBoard events, or as tables in CSV.

    The export contains all steps, validations, samples and events.

    Examples:

      transloom export-metrics runs/phrasebook --to csv

      transloom export-metrics runs/phrasebook --to tensorboard -o logs/phrasebook
    """
    from transloom.observe.exports import export_metrics as write_export

    folder = output or Path(f"{run.absolute().name}-{to}")
    with percentage_bars(Terminal(stderr=True)) as progress:
        report = partial(bars_by_name(progress), f"record of {run.name}")
        exported = write_export(run, to, folder, report, replace=force)
    if to == "tensorboard":
        count = counted(exported.rows["events"], "event")
        what = f"{count}; view them with: tensorboard --logdir {folder}"
    else:
        what = join_items(
            f"{counted(count, 'row')} in {name}" for name, count in exported.rows.items()
        )
    text = f"{folder} has the record of {exported.name} up to step {exported.last_step}: {what}"
    answer({"folder": str(folder), "format": to, **exported._asdict()}, as_json, text)
