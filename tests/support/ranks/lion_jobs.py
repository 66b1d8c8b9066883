"""Jobs of `engine_jobs` with Lion; importing this module registers Lion in the ranks' processes."""

from pathlib import Path
from typing import Any

import lion

from support.ranks import engine_jobs
from support.ranks.engine_jobs import Shape
from trainer.process.placement import Placement
from trainer.registries.optimizers import OPTIMIZERS

NAME = "lion"
assert OPTIMIZERS[NAME] is lion.LionKind


def train(placement: Placement, shape: Shape, steps: int, clipping: float = 0.0) -> Any:
    return engine_jobs.train(placement, shape, steps, clipping, NAME)


def train_and_save(placement: Placement, shape: Shape, steps: int, folder: Path) -> Any:
    return engine_jobs.train_and_save(placement, shape, steps, folder, NAME)


def resume(placement: Placement, shape: Shape, folder: Path, last: int) -> Any:
    return engine_jobs.resume(placement, shape, folder, last, NAME)
