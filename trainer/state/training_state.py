"""Everything that a checkpoint holds, in the form it has while the rank trains."""

from dataclasses import dataclass

from trainer.state.ema import Ema
from trainer.state.progress import Progress
from trainer.zero.engine import TrainingEngine


@dataclass(frozen=True)
class TrainingState:
    """How far the run is, its weights and moments, and the average of its weights if it has one."""

    progress: Progress
    engine: TrainingEngine
    ema: Ema | None
