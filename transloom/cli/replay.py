"""Command `transloom replay`: train steps of a run again, and inspect them."""

from pathlib import Path
from typing import Annotated

import typer

from foundation.terminal import Terminal
from transloom.cli.options import (
    JsonOption,
    MovedDatasetOption,
    Overrides,
    RayAddressOption,
    RunArgument,
    answer,
    step_range,
)


def replay(
    run: RunArgument,
    overrides: Overrides = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="A:B",
            help="Range of steps to train again, from A to B inclusive, or a single step.",
        ),
    ] = None,
    worst: Annotated[
        bool,
        typer.Option(
            "--worst",
            help="Replay only the step at which the loss or gradient norm jumped most. The "
            "command searches the steps of --steps, by default all steps.",
        ),
    ] = False,
    look: Annotated[
        bool,
        typer.Option(
            "--look",
            help="Show the examples of each step, sorted by loss, with gradient norms and "
            "activations.",
        ),
    ] = False,
    examples: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --look: number of examples to show per step. --json prints all examples.",
        ),
    ] = 10,
    ranks: Annotated[
        int,
        typer.Option(min=1, help="Number of ranks. A single rank without --address needs no Ray."),
    ] = 1,
    address: RayAddressOption = None,
    dataset: MovedDatasetOption = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which to create a temporary folder for the replay. With --address, it "
            "must be on storage that all nodes share. Default: the system's temporary folder."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train steps of a run again, compare the results with its record, and inspect the steps.

    The replay starts from the last intact checkpoint before the steps, and writes nothing to the
    run. The exit code is 0 if data, losses and state equal the record as far as the run's numerics
    guarantee it, else 1.

    Examples:

      transloom replay runs/phrasebook --steps 480:500

      transloom replay runs/phrasebook --worst --look

      transloom replay runs/phrasebook --steps 120 --look --json
    """
    if steps is None and not worst:
        raise typer.BadParameter(
            "no steps are given: name them with --steps A:B, or let --worst choose a step"
        )
    from run_store.folder import StepRange
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
    text = replay_report_text(found, examples)
    answer(found.model_dump(mode="json"), as_json, text, failed=not found.verdict.same)
