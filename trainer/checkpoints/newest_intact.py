"""Choice of the newest intact checkpoint, from which a run continues."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from trainer.checkpoints.checkpoint import Checkpoint
from trainer.checkpoints.folder_names import list_averages, list_checkpoints
from trainer.errors import CheckpointError


def newest_intact(
    checkpoints: Path,
    *,
    read_files: bool = True,
    damaged: Mapping[Path, str] = MappingProxyType({}),
) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the newest intact checkpoint or None, and the problem of each newer one by its path.

    Args:
        checkpoints: the run's directory of checkpoints.
        read_files: whether to compare the hashes of the files, see
            `Checkpoint.verify_before_reading`; otherwise only their sizes are compared.
        damaged: the problems of checkpoints that are known to be damaged, by their paths.
    """
    return _last_intact(list_checkpoints(checkpoints), damaged, read_files)


def newest_intact_average(
    checkpoints: Path, damaged: Mapping[Path, str] = MappingProxyType({})
) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the newest intact average or None; see `newest_intact`."""
    return _last_intact(list_averages(checkpoints), damaged)


def _last_intact(
    paths: list[Path], known: Mapping[Path, str], read_files: bool = True
) -> tuple[Checkpoint | None, dict[Path, str]]:
    damaged = {}
    for path in reversed(paths):
        if path in known:
            damaged[path] = known[path]
            continue
        try:
            checkpoint = Checkpoint(path)
            checkpoint.verify_before_reading() if read_files else checkpoint.verify_sizes()
        except CheckpointError as error:
            damaged[path] = str(error)
        else:
            return checkpoint, damaged
    return None, damaged
