"""Which checkpoints stay."""

from pathlib import Path

from trainer.checkpoints.commit import discard
from trainer.checkpoints.format import list_checkpoints, read_header, step_of
from trainer.config import CheckpointsConfig
from trainer.errors import CheckpointError


def prune(checkpoints: Path, work: Path, config: CheckpointsConfig) -> list[Path]:
    """Remove all but the newest, the best, and every k-th; returns what was removed."""
    paths = list_checkpoints(checkpoints)
    losses = {path: _validation_loss(path) for path in paths}
    scored = [path for path in paths if losses[path] is not None]
    best = sorted(scored, key=lambda path: (losses[path], -step_of(path)))[: config.keep_best]
    removed = [path for path in paths[: -config.keep_last or None] if path not in best]
    for path in removed:
        # Renamed first, so that no half-removed folder looks complete.
        condemned = work / f"condemned-{path.name}"
        path.rename(condemned)
        discard(condemned)
    return removed


def _validation_loss(path: Path) -> float | None:
    try:
        return read_header(path).validation_loss
    except CheckpointError:
        return None
