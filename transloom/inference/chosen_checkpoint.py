"""The checkpoint of a run that a command uses; this module imports no torch."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from run_store.checkpoints.checkpoint import Checkpoint, newest_intact, newest_intact_average
from run_store.checkpoints.folder_names import list_averages, list_checkpoints, step_of
from run_store.checkpoints.format import CheckpointHeader, read_header
from run_store.errors import CheckpointError
from run_store.folder import RunFolder


def find_checkpoint(
    run: RunFolder, checkpoint: int | str | None, damaged: Mapping[Path, str] = MappingProxyType({})
) -> tuple[Checkpoint, list[str]]:
    """Find and verify the requested checkpoint, or the newest intact one.

    If no checkpoint of a step is intact, the newest intact average is used instead.

    Args:
        checkpoint: a step or the name of an average, or None for the newest.
        damaged: the problems of checkpoints that are known to be damaged, by their paths.

    Returns:
        The checkpoint, and the reasons why checkpoints that are normally preferred were not chosen.

    Raises:
        CheckpointError: the run has no such checkpoint, or it is damaged.
    """
    if checkpoint is None:
        newest, damaged_steps = newest_intact(run.checkpoints, damaged=damaged)
        passed_over = list(damaged_steps.values())
        if newest is None:
            newest, damaged_averages = newest_intact_average(run.checkpoints, damaged)
            passed_over += damaged_averages.values()
            if newest is None:
                reason = "; ".join(passed_over) or "it has not reached its first checkpoint"
                raise CheckpointError(f"{run.path} has no checkpoint to use: {reason}")
            if not damaged_steps:
                passed_over.append(f"{run.path} has no checkpoint of a step, only averages")
        return newest, passed_over
    found = Checkpoint(checkpoint_path(run, checkpoint))
    found.verify_before_reading()
    return found, []


def readable_headers(checkpoints: Iterable[Path]) -> dict[Path, CheckpointHeader]:
    """Return the readable headers of checkpoints, in the order of the checkpoints."""
    headers = {}
    for path in checkpoints:
        with suppress(CheckpointError):
            headers[path] = read_header(path)
    return headers


def checkpoint_path(run: RunFolder, checkpoint: int | str) -> Path:
    """Return the folder of a checkpoint, given its step or the name of an average.

    Raises:
        CheckpointError: the run has no such checkpoint.
    """
    steps = {str(step_of(path)): path for path in list_checkpoints(run.checkpoints)}
    averages = {path.name: path for path in list_averages(run.checkpoints)}
    path = (steps | averages).get(str(checkpoint))
    if path is None:
        wanted = f"of step {checkpoint}" if str(checkpoint).isdecimal() else f"named {checkpoint}"
        raise CheckpointError(
            f"{run.path} has no checkpoint {wanted}. Name one of its checkpoints: "
            f"[{', '.join([*steps, *averages])}]"
        )
    return path
