"""`transloom checkpoints`: the checkpoints of a run."""

from typing import Annotated

import typer

from cluster.errors import EXIT_FAILED
from cluster.terminal import Terminal
from transloom.cli.options import JsonOption, RunArgument, answer

checkpoints_app = typer.Typer(
    no_args_is_help=True, help="List, verify, prune and average a run's checkpoints."
)


@checkpoints_app.command("list")
def list_checkpoints(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the checkpoints of a run, oldest first, and their averages.

    Example:  transloom checkpoints list runs/phrasebook
    """
    from transloom.commands.checkpoints import checkpoint_rows, checkpoints_table

    rows = checkpoint_rows(run)
    answer(rows, as_json, checkpoints_table(rows))


@checkpoints_app.command("verify")
def verify_checkpoints(run: RunArgument, as_json: JsonOption = False) -> None:
    """Compare every file with its recorded sha256; exit code 1 if one is damaged.

    Example:  transloom checkpoints verify runs/phrasebook
    """
    from transloom.commands.checkpoints import verification_table, verified_rows

    rows = verified_rows(run, Terminal(stderr=True))
    answer(rows, as_json, verification_table(rows))
    if not all(row["intact"] for row in rows):
        raise typer.Exit(EXIT_FAILED)


@checkpoints_app.command("prune")
def prune_checkpoints(
    run: RunArgument,
    keep_last: Annotated[int | None, typer.Option(min=1, help="How many of the newest stay.")] = (
        None
    ),
    keep_best: Annotated[
        int | None, typer.Option(min=0, help="How many of those with the best validation stay.")
    ] = None,
    keep_every: Annotated[
        int | None, typer.Option(min=0, metavar="STEPS", help="Those of every k-th step stay.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove checkpoints that need not stay; what is not said is as in the run's recipe.

    A run that trains does so itself, and refuses this. Example:

      transloom checkpoints prune runs/phrasebook --keep-last 1 --dry-run
    """
    from transloom.commands.checkpoints import prune_run, pruned_text

    removed = prune_run(
        run, keep_last, keep_best, keep_every, dry_run=dry_run, console=Terminal(stderr=True)
    )
    paths = [str(path) for path in removed]
    answer({"removed": paths, "dry_run": dry_run}, as_json, pruned_text(paths, dry_run))


@checkpoints_app.command("average")
def average_checkpoints(
    run: RunArgument,
    last: Annotated[int | None, typer.Option(min=1, help="So many of the newest.")] = None,
    best: Annotated[
        int | None, typer.Option(min=1, help="So many of those with the best validation.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="STEP,STEP,…", help="Those of these steps.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Average the weights of checkpoints, to translate with; by default of all that there are.

    Nothing can be resumed from an average. Examples:

      transloom checkpoints average runs/phrasebook --last 5

      transloom checkpoints average runs/phrasebook --best 3

      transloom checkpoints average runs/phrasebook --steps 100,200,300
    """
    from transloom.commands.checkpoints import average_run

    if sum(choice is not None for choice in (last, best, steps)) > 1:
        raise typer.BadParameter("--last, --best and --steps exclude each other: give one of them")
    average = average_run(run, last, best, None if steps is None else _numbers(steps))
    told = (
        f"{average.path} has the mean of the weights of steps "
        f"{', '.join(map(str, average.header.averaged_steps))}. Translate with it:\n"
        f"transloom translate {run} --checkpoint {average.path.name}"
    )
    found = {"path": str(average.path), "averaged_steps": average.header.averaged_steps}
    answer(found, as_json, told)


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise typer.BadParameter(f"--steps is {text!r}: give steps as in 100,200,300")
    return sorted({int(word) for word in words})
