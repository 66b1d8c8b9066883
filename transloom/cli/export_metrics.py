"""Command `transloom export-metrics`: convert the record of a run for other programs."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cluster.terminal import Terminal, bars_by_name, percentage_bars
from foundation.wording import counted, join_items
from transloom.cli.options import JsonOption, RunArgument, answer

if TYPE_CHECKING:
    from transloom.observe.exports.exporting import Exported


def export_metrics(
    run: RunArgument,
    to: Annotated[
        Literal["tensorboard", "csv", "parquet"],  # parquet only for the error below
        typer.Option(
            metavar="[tensorboard|csv]",
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
    if to == "parquet":
        raise typer.BadParameter(
            "Parquet is no longer written: use --to csv, and convert each table with pandas, as in "
            "pandas.read_csv('train.csv').to_parquet('train.parquet')"
        )
    from transloom.observe.exports.exporting import export_metrics as write_export

    folder = output or Path(f"{run.absolute().name}-{to}")
    with percentage_bars(Terminal(stderr=True)) as progress:
        report = partial(bars_by_name(progress), f"record of {run.name}")
        exported = write_export(run, to, folder, report, replace=force)
    found = {"folder": str(folder), **exported.model_dump(mode="json")}
    answer(found, as_json, in_words(exported, folder))


def in_words(exported: "Exported", folder: Path) -> str:
    """Return a sentence that describes the export."""
    if exported.format == "tensorboard":
        looked_at = f"tensorboard --logdir {folder}"
        what = f"{counted(exported.rows['events'], 'event')}; view them with: {looked_at}"
    else:
        what = join_items(
            f"{counted(count, 'row')} in {name}" for name, count in exported.rows.items()
        )
    return f"{folder} has the record of {exported.name} up to step {exported.last_step}: {what}"
