"""Command `transloom train`: train a run, or continue its training."""

from typing import Annotated

import typer

from cluster.errors import EXIT_PREEMPTED
from cluster.supervision.command_signals import exit_on_signal_before_run, ignore_signals
from foundation.terminal import Terminal
from transloom.cli.options import (
    JsonOption,
    Overrides,
    RayAddressOption,
    RecipeArgument,
    RunOption,
    StrictOption,
    answer,
    step_range,
)


def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: RunOption = None,
    address: RayAddressOption = None,
    inline: Annotated[
        bool,
        typer.Option(
            "--inline", help="Train one rank in this process, without Ray; for debugging."
        ),
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Write a torch profile of steps A to B for each rank."),
    ] = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a run, or continue it from its newest checkpoint.

    The same command starts a new run and continues a run that was stopped. Its exit code is 75 if
    the run was stopped and can be continued.

    Examples:

      transloom train phrasebook trainer.max_steps=100

      transloom train multi30k-ende cluster.ranks=2 --address 10.0.0.1:6379

      transloom train phrasebook --profile 20:22
    """
    exit_on_signal_before_run()
    first_and_last = step_range(profile) if profile else None
    from run_store.folder import StepRange
    from transloom.cli.train_run import TrainOptions, train_run

    steps = StepRange(*first_and_last) if first_and_last else None
    options = TrainOptions(run, address, inline, steps, strict)
    result = train_run(recipe, overrides or [], options, Terminal(stderr=as_json))
    ignore_signals()
    answer(result.to_json(), as_json, result.text())
    raise typer.Exit(0 if result.outcome == "finished" else EXIT_PREEMPTED)
