"""Command `transloom verify-zero`: check the gradients of the installed DeepSpeed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from foundation.terminal import note
from transloom.cli.options import JsonOption, Overrides, RecipeArgument, answer


def verify_zero(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    ranks: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Number of ranks; repeat the option for several. Default: 1 and 2, or with GPUs 1 "
            "and all GPUs of this machine.",
        ),
    ] = None,
    stages: Annotated[
        list[int] | None,
        typer.Option(
            "--stage",
            min=0,
            max=3,
            help="ZeRO stage; repeat the option for several. Default: 0, 1, 2 and 3.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps to train in each cell.")] = 3,
    timeout: Annotated[
        float,
        typer.Option(
            min=1.0,
            metavar="SECONDS",
            help="Time after which the ranks of a cell are ended, and the cell is reported as "
            "hanging.",
        ),
    ] = 300.0,
    as_json: JsonOption = False,
) -> None:
    """Check that the installed DeepSpeed computes the right gradients for a recipe.

    The first steps of the recipe are trained in plain torch, and then under DeepSpeed with each
    combination of ZeRO stage, number of ranks, overlap_comm, bucket size, offload of the optimizer
    and hpZ. All sums are exact, so the weights must have the same bits after every step. The answer
    is a Markdown table with the first step and parameter that differ. The exit code is 0 if all
    cells are equal, else 1. The dataset of the recipe must be prepared.

    Examples:

      transloom verify-zero phrasebook

      transloom verify-zero my-recipe.yaml --ranks 8 --stage 2 --stage 3 --json > zero.json
    """
    from cluster.recipe import find_recipe, load_recipe, with_absolute_paths
    from trainer.verify_zero.report import report_of, report_text

    loaded = load_recipe(find_recipe(recipe), [*(overrides or []), "engine.numerics=exact"])
    with _stdout_to_stderr():  # some versions of DeepSpeed print when they are imported
        report = report_of(
            with_absolute_paths(loaded).training(),
            device="cuda" if loaded.cluster.gpus_per_rank else "cpu",
            ranks=ranks,
            stages=stages,
            steps=steps,
            timeout_seconds=timeout,
            notice=note,
        )
    answer(report.to_json(), as_json, report_text(report), failed=not report.equal)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect the stdout of this process and of its children to stderr."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
