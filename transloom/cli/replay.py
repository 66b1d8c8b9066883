"""`transloom replay`: steps of a run once more, under the microscope."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import EXIT_FAILED
from cluster.terminal import Terminal
from transloom.cli.options import (
    JsonOption,
    MovedDatasetOption,
    Overrides,
    RunArgument,
    answer,
    step_range,
)


def replay(
    run: RunArgument,
    overrides: Overrides = None,
    steps: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="The steps, both inclusive; or one step."),
    ] = None,
    worst: Annotated[
        bool,
        typer.Option(
            "--worst",
            help="Of these steps, or of all, the one whose loss or gradient norm jumped most.",
        ),
    ] = False,
    look: Annotated[
        bool,
        typer.Option(
            "--look", help="Show each step's examples by loss, gradient norms and activations."
        ),
    ] = False,
    examples: Annotated[
        int, typer.Option(min=1, help="How many examples of a step are shown; --json has all.")
    ] = 10,
    ranks: Annotated[
        int, typer.Option(min=1, help="On how many ranks. One needs no Ray, unless --address.")
    ] = 1,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster to train on: HOST:PORT or auto.")
    ] = None,
    dataset: MovedDatasetOption = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep what it needs meanwhile; with --address, a folder that all nodes "
            "have. Default: the system's temporary folder."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train steps of a run again, compare them with its record, and look into them.

    It begins at the nearest intact checkpoint before the steps and writes nothing into the run.
    Exit code 0 if data, losses and state are the same, as far as the numerics promise it; else 1.

    Examples:

      transloom replay runs/phrasebook --steps 480:500

      transloom replay runs/phrasebook --worst --look

      transloom replay runs/phrasebook --steps 120 --look --json
    """
    if steps is None and not worst:
        raise typer.BadParameter("name steps with --steps A:B, or let --worst find one")
    from trainer.runs.step_range import StepRange
    from transloom.cli.replay_run import ReplayRequest
    from transloom.cli.replay_run import replay as replay_run
    from transloom.observe.terminal.replay import replay_report_text

    request = ReplayRequest(
        steps=StepRange(*step_range(steps)) if steps else None,
        worst=worst,
        look=look,
        ranks=ranks,
        address=address,
        overrides=tuple(overrides or ()),
        dataset=dataset,
        scratch=scratch,
    )
    found = replay_run(run, request, Terminal(stderr=True))
    answer(found.model_dump(mode="json"), as_json, replay_report_text(found, examples))
    if not found.verdict.same:
        raise typer.Exit(EXIT_FAILED)
