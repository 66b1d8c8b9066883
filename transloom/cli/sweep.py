"""Command `transloom sweep`: train several runs of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.supervision.command_signals import exit_on_signal_before_run
from foundation.terminal import Terminal
from transloom.cli.options import JsonOption, RecipeArgument, answer


def sweep(
    recipe: RecipeArgument,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE,VALUE...",
            help="Recipe fields, each with the values to try. A field with a single value has it "
            "in all runs.",
        ),
    ],
    at_once: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="K",
            help="Maximum number of runs that train at the same time.",
        ),
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster to train on: HOST:PORT, or auto to detect it. "
            "Default: each run starts Ray on this machine."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Parent folder or URL of the runs.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Train a run for each combination of values, and compare the runs in a table.

    Each run gets the folder name that `transloom train` would give it. If you run the command
    again, it skips finished runs and continues the others. On Ctrl-C or SIGTERM, all runs write a
    checkpoint and stop, and the exit code is 75. If a run fails, the others continue, and the exit
    code is 1. Write values that are lists in brackets, and quote them for the shell.

    Examples:

      transloom sweep phrasebook seed=1,2,3 model.dropout=0.1,0.3

      transloom sweep phrasebook 'trainer.optimizer.betas=[0.9,0.98],[0.9,0.999]' --at-once 2
    """
    exit_on_signal_before_run()
    from cluster.recipe import find_recipe
    from transloom.cli.sweep_points import sweep_points
    from transloom.cli.sweep_runs import Sweep, SweepSignals, TrainProcess
    from transloom.cli.sweep_views import shown_while, sweep_table

    path = find_recipe(recipe).absolute()
    options = ["--address", address] if address is not None else []
    points = sweep_points(path, values, folder)
    with SweepSignals() as signals:
        console = Terminal(stderr=as_json)
        with shown_while(console) as display:
            trained = Sweep(
                points, at_once, lambda point: TrainProcess(path, point, options), display.notice
            )
            code = trained.train(signals, lambda: display.show(trained.runs))
    rows = [run.to_json() for run in trained.runs]
    answer({"outcome": trained.outcome(), "runs": rows}, as_json, sweep_table(trained.runs))
    raise typer.Exit(code)
