"""Commands `transloom checkpoints …`: list, verify, prune and average a run's checkpoints."""

import os
import shlex
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundation.terminal import Terminal, percentage_bars
from foundation.wording import counted, join_items
from run_store.errors import CheckpointError, CheckpointFormatError, RunMismatchError
from run_store.remote.local_copy import local_copy
from transloom.cli.options import JsonOption, RunArgument, answer
from transloom.cli.run_urls import existing_run
from transloom.observe.terminal.tables import AnswerTable, Column

if TYPE_CHECKING:
    from run_store.checkpoints.checkpoint import Checkpoint

checkpoints_app = typer.Typer(
    no_args_is_help=True, help="List, verify, prune and average a run's checkpoints."
)

DIGEST_DIGITS_SHOWN = 16


@checkpoints_app.command("list")
def list_checkpoints(run: RunArgument, as_json: JsonOption = False) -> None:
    """List the checkpoints and the averages of a run, oldest first.

    Example:  transloom checkpoints list runs/phrasebook
    """
    rows = checkpoint_rows(run)
    answer(rows, as_json, checkpoints_table(rows))


@checkpoints_app.command("verify")
def verify_checkpoints(run: RunArgument, as_json: JsonOption = False) -> None:
    """Compare every file of a run's checkpoints with its sha256; exit with code 1 on damage.

    Example:  transloom checkpoints verify runs/phrasebook
    """
    rows = verified_rows(run, Terminal(stderr=True))
    failed = not all(row["intact"] for row in rows)
    answer(rows, as_json, verification_table(rows), failed=failed)


@checkpoints_app.command("prune")
def prune_checkpoints(
    run: RunArgument,
    keep_last: Annotated[
        int | None, typer.Option(min=1, help="Number of newest checkpoints to keep.")
    ] = None,
    keep_best: Annotated[
        int | None,
        typer.Option(min=0, help="Number of checkpoints with the best validation score to keep."),
    ] = None,
    keep_every: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="STEPS",
            help="Keep the checkpoints whose step is a multiple of this number; 0 keeps none by "
            "this rule.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the checkpoints that would be removed, without removing them."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the checkpoints that the retention rules do not keep.

    The run's recipe provides each rule that you do not give. The command fails while the run
    trains, because a run prunes its checkpoints during training.

    Example:

      transloom checkpoints prune runs/phrasebook --keep-last 1 --dry-run
    """
    from cluster.recipe import checkpoints_of_run
    from run_store.checkpoints.checkpoint import newest_intact
    from run_store.checkpoints.retention import prune, superfluous
    from run_store.lease import Lease
    from run_store.record.recorded_status import write_recorded_status

    folder = existing_run(run)
    given = {"keep_last": keep_last, "keep_best": keep_best, "keep_every_steps": keep_every}
    config = checkpoints_of_run(folder).model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    _, damaged = newest_intact(folder.checkpoints)
    if damaged:
        raise CheckpointError(
            f"{'; '.join(damaged.values())}. Nothing is removed, because the run may need an older "
            "checkpoint. When the run starts again, it moves the damaged checkpoint aside"
        )
    announce = partial(Terminal(stderr=True).print, soft_wrap=True)
    if dry_run or folder.url:
        removed = superfluous(folder.checkpoints, config)
    else:
        with Lease(run, announce, trains=False) as lease:
            removed = prune(folder.checkpoints, lease.work, config)
            write_recorded_status(folder, lease.owner)
    if folder.url and not dry_run:
        from run_store.remote.changes import remove_checkpoints  # imports obstore

        remove_checkpoints(folder.url, [path.name for path in removed], announce)
    paths = [str(path) for path in removed]
    answer({"removed": paths, "dry_run": dry_run}, as_json, pruned_text(paths, dry_run))


@checkpoints_app.command("average")
def average_checkpoints(
    run: RunArgument,
    last: Annotated[
        int | None, typer.Option(min=1, help="Number of newest checkpoints to average.")
    ] = None,
    best: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of checkpoints with the best validation scores to average."
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(metavar="STEP,STEP,…", help="Steps of the checkpoints to average."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Average the weights of checkpoints for translation; by default, of all checkpoints.

    Training cannot resume from an average.

    Examples:

      transloom checkpoints average runs/phrasebook --last 5

      transloom checkpoints average runs/phrasebook --best 3

      transloom checkpoints average runs/phrasebook --steps 100,200,300
    """
    if sum(choice is not None for choice in (last, best, steps)) > 1:
        raise typer.BadParameter(
            "--last, --best and --steps are mutually exclusive: give only one of them"
        )
    from transloom.cli.next_steps import own_command

    average = average_run(run, last, best, None if steps is None else _numbers(steps))
    told = (
        f"{average.path} is the mean of the weights of steps "
        f"{', '.join(map(str, average.header.averaged_steps))}. Translate with it:\n"
        f"{own_command()} translate {shlex.quote(str(run))} --checkpoint {average.path.name}"
    )
    found = {"path": str(average.path), "averaged_steps": average.header.averaged_steps}
    answer(found, as_json, told)


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise typer.BadParameter(f"--steps is {text!r}, expected steps such as 100,200,300")
    return sorted({int(word) for word in words})


def checkpoint_rows(run: Path) -> list[dict[str, Any]]:
    """Return a row for each complete checkpoint of a run, and for each average."""
    from run_store.checkpoints.checkpoint import Checkpoint

    rows: list[dict[str, Any]] = []
    for path in _all_of(run):
        try:
            header = Checkpoint(path).header
        except (CheckpointError, CheckpointFormatError) as error:
            rows.append({"path": str(path), "problem": str(error)})
            continue
        rows.append(
            {
                "step": header.step,
                "path": str(path),
                "bytes": sum(file.bytes for file in header.files),
                "averaged_steps": header.averaged_steps,
                "imported_from": header.imported_from,
                "ranks": header.numerics.get("ranks"),
                "zero_stage": header.numerics.get("zero_stage"),
                "scores": header.model_dump(mode="json", include={"scores"})["scores"],
                "data_digest": header.data_digest,
            }
        )
    return rows


def verified_rows(run: Path, console: Terminal) -> list[dict[str, Any]]:
    """Return a row for each checkpoint and each average of a run.

    A row has the first problem that verification finds, or None if the checkpoint is intact.
    """
    from concurrent.futures import ThreadPoolExecutor

    from run_store.checkpoints.checkpoint import Checkpoint

    problems: dict[Path, str | None] = dict.fromkeys(_all_of(run))
    checkpoints = []
    for path in problems:
        try:
            checkpoints.append(Checkpoint(path))
        except (CheckpointError, CheckpointFormatError) as error:
            problems[path] = str(error)
    files = [
        (checkpoint, record) for checkpoint in checkpoints for record in checkpoint.header.files
    ]
    with percentage_bars(console) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = progress.add_task("verifying", total=sum(record.bytes for _, record in files))
        found = pool.map(lambda file: _problem(file[0].verify_file, file[1]), files)
        for (checkpoint, record), problem in zip(files, found, strict=True):
            problems[checkpoint.path] = problems[checkpoint.path] or problem
            progress.advance(task, record.bytes)
    for checkpoint in checkpoints:
        if problems[checkpoint.path] is None:
            problems[checkpoint.path] = _problem(_check_contents, checkpoint, run)
    return [
        {"path": str(path), "intact": problem is None, "problem": problem}
        for path, problem in problems.items()
    ]


def average_run(
    run: Path, last: int | None, best_count: int | None, steps: list[int] | None
) -> "Checkpoint":
    """Average the newest, the best, or given checkpoints of a run; by default average all.

    Args:
        last: the number of newest checkpoints.
        best_count: the number of checkpoints with the best validation score.
        steps: the steps of the checkpoints.

    Raises:
        CheckpointError: the run has fewer checkpoints than requested, or one of them is damaged.
    """
    from cluster.recipe import checkpoints_of_run
    from run_store.checkpoints.averaging import average  # imports torch
    from run_store.checkpoints.checkpoint import Checkpoint
    from run_store.checkpoints.folder_names import list_checkpoints, step_of
    from run_store.checkpoints.format import read_header
    from run_store.checkpoints.retention import best

    folder = existing_run(run)
    paths = {step_of(path): path for path in list_checkpoints(folder.checkpoints)}
    chosen = list(paths)
    if last is not None:
        chosen = chosen[-last:]
    elif best_count is not None:
        metric = checkpoints_of_run(folder).best_by
        ranking = best({path: read_header(path) for path in paths.values()}, metric)
        chosen = sorted(map(step_of, ranking[:best_count]))
    elif steps is not None:
        chosen = [step for step in steps if step in paths]
    wanted = last or best_count or (len(steps) if steps else 1)
    if len(chosen) < wanted:
        raise CheckpointError(
            f"{run} has only {len(chosen)} of the {counted(wanted, 'checkpoint')} to average; it "
            f"has checkpoints of the steps {join_items(paths)}. Average fewer checkpoints, or let "
            "the run keep more of them by raising checkpoints.keep_last"
        )
    averaged = [Checkpoint(paths[step]) for step in chosen]
    if folder.url is None:
        return average(folder.checkpoints, averaged)
    from run_store.remote.changes import add_checkpoint  # imports obstore

    with tempfile.TemporaryDirectory(prefix="transloom-average-") as directory:
        made = average(Path(directory), averaged)
        add_checkpoint(folder.url, made)
    return Checkpoint(local_copy(folder.url) / folder.checkpoints.name / made.path.name)


def checkpoints_table(rows: list[dict[str, Any]]) -> AnswerTable:
    from transloom.observe.terminal.scores import score_heading

    measures = list(dict.fromkeys(name for row in rows for name in row.get("scores", ())))
    table = AnswerTable(
        Column("step", copied=True),
        "size",
        "written by",
        *(f"validation {score_heading(measure, _decoding(rows, measure))}" for measure in measures),
        Column("data digest", copied=True, shown=DIGEST_DIGITS_SHOWN),
    )
    for row in rows:
        if "problem" in row:
            table.add(
                Path(row["path"]).name, "", row["problem"], *[""] * len(measures), "", style="red"
            )
            continue
        averaged = row["averaged_steps"]
        table.add(
            Path(row["path"]).name if averaged else str(row["step"]),
            f"{row['bytes'] / 1e6:.1f} MB",
            "" if averaged else _writer_text(row),
            *(_score_text(row["scores"], measure) for measure in measures),
            "" if averaged else row["data_digest"],
        )
    return table


def verification_table(rows: list[dict[str, Any]]) -> AnswerTable:
    table = AnswerTable(Column("checkpoint", copied=True), "state")
    for row in rows:
        intact = row["intact"]
        state = "intact" if intact else row["problem"]
        table.add(row["path"], state, style="" if intact else "red")
    return table


def pruned_text(removed: list[str], dry_run: bool) -> str:
    """Return a list of the checkpoints that were removed, or that a real run would remove."""
    if not removed:
        return "No checkpoint is removed."
    heading = "These checkpoints would be removed:" if dry_run else "Removed these checkpoints:"
    return "\n".join([heading, *removed])


def _writer_text(row: dict[str, Any]) -> str:
    if source := row["imported_from"]:
        return f"imported from {source}"
    ranks, stage = row["ranks"], row["zero_stage"]
    parts = [counted(ranks, "rank")] if isinstance(ranks, int) else []
    return ", ".join(parts + ([f"ZeRO {stage}"] if isinstance(stage, int) else []))


def _decoding(rows: list[dict[str, Any]], measure: str) -> str | None:
    found = (row.get("scores", {}).get(measure, {}).get("decoding") for row in rows)
    return next(filter(None, found), None)


def _score_text(scores: dict[str, dict[str, Any]], measure: str) -> str:
    from transloom.observe.terminal.scores import score_value

    value = scores.get(measure, {}).get("value")
    return "" if value is None else score_value(measure, value)


def _all_of(run: Path) -> list[Path]:
    from run_store.checkpoints.folder_names import list_averages, list_checkpoints

    checkpoints = existing_run(run).checkpoints
    return list_checkpoints(checkpoints) + list_averages(checkpoints)


def _problem(check: Callable[..., object], *arguments: object) -> str | None:
    """Return the problem that a check of a checkpoint finds, or None if it finds none."""
    try:
        check(*arguments)
    except (CheckpointError, CheckpointFormatError, RunMismatchError) as error:
        return str(error)
    return None


def _check_contents(checkpoint: "Checkpoint", run: Path) -> None:
    """Check the contents of a checkpoint, whose files must match their hashes.

    Raises:
        CheckpointError, RunMismatchError: the contents do not fit the run, or are not finite.
    """
    # Imported late, because `reader` and `trained_network` import torch.
    from run_store.checkpoints.reader import CheckpointReader, require_same_shapes
    from run_store.folder import RunFolder
    from transloom.inference.trained_network import shapes_of_run

    if checkpoint.header.files:
        reader = CheckpointReader(checkpoint)
        if shapes := shapes_of_run(RunFolder(run), checkpoint):
            require_same_shapes(checkpoint, shapes)
        reader.check_numbers()
