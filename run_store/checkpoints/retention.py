"""Retention of checkpoints: keep the newest, the best, and the checkpoint of every k-th step."""

from collections.abc import Mapping
from pathlib import Path

from run_store.checkpoints.commit import remove
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.checkpoints.format import CheckpointHeader, read_header
from run_store.config import CheckpointsConfig
from run_store.errors import CheckpointError, CheckpointFormatError


def prune(checkpoints: Path, work: Path, config: CheckpointsConfig) -> list[Path]:
    """Remove the checkpoints that no rule keeps, and return their paths.

    Raises:
        OSError: another process owns the run, or a folder is write-protected.
    """
    removed = superfluous(checkpoints, config)
    for path in removed:
        remove(path, work)
    return removed


def superfluous(checkpoints: Path, config: CheckpointsConfig) -> list[Path]:
    """Return the checkpoints that no rule keeps, oldest first.

    No rule keeps a checkpoint with a damaged header, but it is returned only if a newer checkpoint
    has a readable header.
    """
    headers: dict[Path, CheckpointHeader | None] = {}
    for path in list_checkpoints(checkpoints):
        try:
            headers[path] = read_header(path)
        except CheckpointError:
            headers[path] = None
        except CheckpointFormatError:
            continue  # another version wrote the checkpoint, and may need it
    readable = {path: header for path, header in headers.items() if header}
    newest = list(readable)[-config.keep_last :]
    stay = {*newest, *best(readable, config.best_by)[: config.keep_best]}
    if config.keep_every_steps:
        stay |= {path for path in readable if step_of(path) % config.keep_every_steps == 0}
    older = list(headers)[: list(headers).index(newest[-1])] if newest else []
    return [path for path in older if path not in stay]


def best(headers: Mapping[Path, CheckpointHeader], metric: str) -> list[Path]:
    """Return the checkpoints with a score of the metric, best first, and newer first if equal."""
    costs = {
        path: cost
        for path, header in headers.items()
        if metric in header.scores and (cost := header.scores[metric].cost) is not None
    }
    return sorted(costs, key=lambda path: (costs[path], -step_of(path)))
