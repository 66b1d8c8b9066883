"""Average of the weights of several checkpoints, stored as a checkpoint for translation.

Vaswani et al. (2017, §6.1) translate with the average of the last checkpoints of a run. If the run
keeps a moving average of its weights, the moving averages in the checkpoints are averaged instead
of the weights. The result has all weights but no moments, so training ignores the result and cannot
resume from it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from foundation.folder_lock import new_locked_folder, remove_unlocked
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.commit import commit, remove
from run_store.checkpoints.folder_names import average_name
from run_store.checkpoints.fragment import MASTER
from run_store.checkpoints.reader import CheckpointReader
from run_store.checkpoints.state_file import fragment_key, state_file_name, write_state_file
from run_store.errors import CheckpointError
from run_store.lease import WORK, discard


def average(checkpoints: Path, averaged: Sequence[Checkpoint]) -> Checkpoint:
    """Write the average of some checkpoints of a run into the run's directory of checkpoints.

    An older average of the same steps is replaced. The run may be training at the same time. If
    another process takes over the run during the call, that process removes the unfinished average.

    Args:
        checkpoints: the run's directory of checkpoints.
        averaged: the checkpoints to average, oldest first.

    Raises:
        CheckpointError: a checkpoint is damaged, the parameters differ between checkpoints, or
            another process took over the run during the call.
        OSError: the average cannot be written.
    """
    newest = averaged[-1].header
    for checkpoint in averaged:
        checkpoint.verify_before_reading()
        if checkpoint.header.parameters != newest.parameters:
            raise CheckpointError(
                f"{checkpoint.path} has other parameters than {averaged[-1].path}: average only "
                "checkpoints of the same model"
            )
    readers = [CheckpointReader(checkpoint) for checkpoint in averaged]
    steps = [checkpoint.step for checkpoint in averaged]
    final = checkpoints / average_name(steps)
    # No owner has the number 0. Folders that a killed call has left are not locked.
    prefix = f"{WORK}{0:08d}-"
    remove_unlocked(checkpoints.glob(f"{prefix}*"))
    work, lock = new_locked_folder(prefix, checkpoints, must_lock=False)
    partial = work / final.name
    try:
        partial.mkdir()
        sizes = {
            fragment_key(MASTER, name, 0): torch.Size(shape).numel()
            for name, shape in newest.parameters.items()
        }
        file = write_state_file(
            partial / state_file_name(0, 1), sizes, _context(readers, list(newest.parameters))
        )
        header = newest.model_copy(update={"averaged_steps": steps, "scores": {}})
        with suppress(FileNotFoundError):
            remove(final, work)
        return commit(partial, final, header, [file])
    except FileNotFoundError as error:
        if work.is_dir():
            raise
        raise CheckpointError(
            f"The average was not written, because another command began to train or prune "
            f"{checkpoints.parent} and removed the unfinished average. Start the same command again"
        ) from error
    finally:
        discard(work)
        os.close(lock)


def _context(readers: list[CheckpointReader], parameters: list[str]) -> Iterator[memoryview]:
    """Yield the bytes of each parameter's mean, one parameter at a time to bound memory."""
    for name in parameters:
        total = readers[0].weight(name).double()
        for reader in readers[1:]:
            total += reader.weight(name)
        yield (total / len(readers)).float().view(torch.uint8).numpy().data
