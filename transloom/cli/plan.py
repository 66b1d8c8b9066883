"""`transloom plan`: what a run takes and what is missing, before it trains."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import EXIT_FAILED
from cluster.terminal import note
from transloom.cli.options import JsonOption, Overrides, RecipeArgument, answer


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: Annotated[
        Path | None, typer.Option(help="The run's folder. Default: runs/ and a name.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster to look at: HOST:PORT or auto.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Take the speed from this run's record."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Train a few steps of one rank in this process where no record tells the speed.",
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Tell what a run takes and what is missing for it: memory, disk, hours, nodes.

    Exit code 0 if it can be trained like this, 1 if not; each problem is a line with its remedy.
    `transloom train` and `transloom submit` begin with the quick part of it.

    Examples:

      transloom plan phrasebook

      transloom plan multi30k-ende cluster.ranks=2 --address 10.0.0.1:6379 --run /shared/runs/m30k

      transloom plan vaswani-base --from runs/vaswani-base --no-measure --json
    """
    from cluster.planning.plan import Wanted
    from trainer.runs.folder import RunFolder
    from transloom.commands.plan import plan_run, plan_text

    made = plan_run(
        recipe,
        overrides or [],
        run=run,
        wanted=Wanted(address, measure, RunFolder(like) if like else None),
        notice=note,
    )
    answer(made.to_json(), as_json, plan_text(made))
    if not made.trainable:
        raise typer.Exit(EXIT_FAILED)
